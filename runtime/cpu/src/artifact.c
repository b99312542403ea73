/* The part of an artefact that is the same in all of them: its C ABI over the program, weights and metadata linked beside it. */
#define _GNU_SOURCE
#include "internal.h"

#include <sys/mman.h>

extern const qcc_program qcc_model_program __attribute__((visibility("hidden")));
extern const unsigned char qcc_model_weights[] __attribute__((visibility("hidden")));
extern const int64_t qcc_model_weights_form[3] __attribute__((visibility("hidden"))); /* coded or not, enum qcc_decode, bytes */
extern const char qcc_model_metadata[] __attribute__((visibility("hidden")));

/* JSON in UTF-8: names, shapes, types and quantization of inputs and outputs, the report per layer, versions, needed CPU features. */
const char *qcc_model_info(void) { return qcc_model_metadata; }

/* As qcc_model_create_from, for the program in this artefact. Weights that are decoded at load are decoded once for all of its models. */
int qcc_model_create(int threads, qcc_model **model) {
    static qcc_shared_weights shared;
    if (!qcc_model_weights_form[0]) return qcc_model_create_from(&qcc_model_program, qcc_model_weights, threads, model);
    int decode = (int)qcc_model_weights_form[1];
    int64_t bytes = qcc_model_weights_form[2];
    int status = qcc_model_create_coded(&qcc_model_program, qcc_model_weights, bytes, decode, &shared, threads, model);
    if (decode == QCC_DECODE_LOAD) madvise((void *)qcc_model_weights, (size_t)bytes, MADV_DONTNEED); /* the file has them still */
    return status;
}
