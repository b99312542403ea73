"""Instructions that the machine under test may lack, emulated so that code for them runs in tests."""
