/* The part of an artefact that is the same in all of them: its C ABI over the program, weights and metadata linked beside it. */
#include "internal.h"

extern const qcc_program qcc_model_program __attribute__((visibility("hidden")));
extern const unsigned char qcc_model_weights[] __attribute__((visibility("hidden")));
extern const char qcc_model_metadata[] __attribute__((visibility("hidden")));

/* JSON in UTF-8: names, shapes, types and quantization of inputs and outputs, the report per layer, versions, needed CPU features. */
const char *qcc_model_info(void) { return qcc_model_metadata; }

/* As qcc_model_create_from, for the program in this artefact. */
int qcc_model_create(int threads, qcc_model **model) { return qcc_model_create_from(&qcc_model_program, qcc_model_weights, threads, model); }
