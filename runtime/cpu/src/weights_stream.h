/* Decoding the weights of a step right before it runs. */
#ifndef QCC_WEIGHTS_STREAM_H
#define QCC_WEIGHTS_STREAM_H

#include "weights_image.h"

struct qcc_stream;

/* Opens the image and fills `pointers` of all weights operands. *stream is to be destroyed also where this fails. */
int qcc_stream_create(struct qcc_stream **stream, const qcc_program *program, const void *image, int64_t bytes, int threads, void **pointers);
void qcc_stream_destroy(struct qcc_stream *stream);

/* Whether `step` has coded weights; the same for all threads. */
int qcc_stream_has(const struct qcc_stream *stream, int64_t step);

/* Decode this thread's share of the step's weights. All threads must have finished the step before, and meet before the step runs. */
void qcc_stream_decode(struct qcc_stream *stream, int64_t step, int thread, int threads);

/* Whether any tile was found damaged; ask behind the meeting of all threads. */
int qcc_stream_is_damaged(struct qcc_stream *stream);

#endif
