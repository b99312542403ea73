/* What the runtime's own files share. */
#ifndef QCC_INTERNAL_H
#define QCC_INTERNAL_H

#include "qcc_runtime.h"

#include <stddef.h>

/* Set this thread's error text (printf style) and return `status`. */
int qcc_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* `bytes` of memory from the beginning of a page, in huge pages where it is large; for free(). NULL if there is none. */
void *qcc_pages(size_t bytes);

/* Ask the kernel for AMX tile state where `required` features include it; 0 if refused. */
int qcc_allow_amx(int64_t required);

#endif
