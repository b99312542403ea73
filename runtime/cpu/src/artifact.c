/* The part of an artefact that is the same in all of them: its C ABI over the program, weights and metadata linked beside it. */
#define _GNU_SOURCE
#include "internal.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

extern const qcc_program qcc_model_program __attribute__((visibility("hidden")));
extern const unsigned char qcc_model_weights[] __attribute__((visibility("hidden")));
extern const int64_t qcc_model_weights_form[3] __attribute__((visibility("hidden"))); /* coded or not, enum qcc_decode, bytes */
extern const char qcc_model_metadata[] __attribute__((visibility("hidden")));

enum { LEAST_BYTES = 8 << 20 };

static _Atomic(unsigned char *) copy; /* of the weights, in huge pages; one for all contexts */

/* Large weights stream from memory in every run. Pages of a mapped file are small, so they are copied once into huge pages; the file's
 * own pages are given back. */
static const void *resident_weights(void) {
    if (qcc_model_program.weights_bytes < LEAST_BYTES) return qcc_model_weights;
    unsigned char *known = atomic_load(&copy);
    if (known) return known;
    size_t size = (size_t)qcc_model_program.weights_bytes;
    unsigned char *block = qcc_pages(size);
    if (!block) return qcc_model_weights;
    memcpy(block, qcc_model_weights, size);
    if (!atomic_compare_exchange_strong(&copy, &known, block)) {
        free(block);
        return known;
    }
    madvise((void *)qcc_model_weights, size, MADV_DONTNEED);
    return block;
}

__attribute__((destructor)) static void release(void) { free(atomic_exchange(&copy, NULL)); }

/* JSON in UTF-8: names, shapes, types and quantization of inputs and outputs, the report per layer, versions, needed CPU features. */
const char *qcc_model_info(void) { return qcc_model_metadata; }

/* As qcc_model_create_from, for the program in this artefact. Weights that are decoded at load are decoded once for all of its models. */
int qcc_model_create(int threads, qcc_model **model) {
    static qcc_shared_weights shared;
    if (!qcc_model_weights_form[0]) return qcc_model_create_from(&qcc_model_program, resident_weights(), threads, model);
    int decode = (int)qcc_model_weights_form[1];
    int64_t bytes = qcc_model_weights_form[2];
    int status = qcc_model_create_coded(&qcc_model_program, qcc_model_weights, bytes, decode, &shared, threads, model);
    if (decode == QCC_DECODE_LOAD) madvise((void *)qcc_model_weights, (size_t)bytes, MADV_DONTNEED); /* the file has them still */
    return status;
}
