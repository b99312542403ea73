/* Weights that stay coded in memory: those of a step are decoded right before it runs, into one place that all steps share.
 *
 * Raw entries are used where they lie in the image. The place is as large as the coded entries of the neediest step; the compiler cuts large
 * layers into several. */
#include "weights_stream.h"

#include <stdatomic.h>
#include <stdlib.h>

struct qcc_stream {
    struct qcc_image image;
    int64_t *begin; /* [step_count + 1]: first job of a step */
    struct qcc_decode_job *jobs;
    uint8_t *place;
    struct qcc_decoder *decoders; /* [threads] */
    atomic_int damaged;
};

static int64_t round_up(int64_t bytes) { return (bytes + QCC_ALIGNMENT - 1) / QCC_ALIGNMENT * QCC_ALIGNMENT; }

/* Where a weights operand of the current step will be: in the image, or `offset` bytes into the place, for which a job is added. */
static int resolve(struct qcc_stream *stream, int64_t first_job, int64_t *job_count, int64_t *tiles, int64_t *used, int64_t offset, void **pointer) {
    const struct qcc_image_entry *entry = qcc_image_find(&stream->image, offset);
    if (!entry) return 0;
    int64_t inside = offset - (int64_t)entry->offset_bytes, at = 0;
    if (entry->mode == QCC_CODING_RAW) {
        *pointer = (void *)(stream->image.data + entry->place + inside);
        return 1;
    }
    for (int64_t i = first_job; i < *job_count; i++) {
        if (stream->jobs[i].entry == entry) { /* two operands may be one entry */
            *pointer = (void *)(at + inside);
            return 2;
        }
        at += round_up((int64_t)stream->jobs[i].entry->size_bytes);
    }
    stream->jobs[(*job_count)++] = (struct qcc_decode_job){entry, (uint8_t *)at, *tiles};
    *tiles += entry->tiles;
    *used = at + round_up((int64_t)entry->size_bytes);
    *pointer = (void *)(at + inside);
    return 2;
}

/* Whether the `count` jobs from `jobs` on decode what the last `held` jobs before them have left in the place. */
static int repeats(const struct qcc_decode_job *jobs, int64_t count, int64_t held) {
    if (count != held) return 0;
    for (int64_t i = 0; i < count; i++)
        if (jobs[i].entry != jobs[i - held].entry) return 0;
    return 1;
}

int qcc_stream_create(struct qcc_stream **result, const qcc_program *program, const void *image, int64_t bytes, int threads, void **pointers) {
    struct qcc_stream *stream = calloc(1, sizeof *stream);
    char *relative = calloc((size_t)program->operand_count + 1, 1); /* operands whose pointer counts from the place */
    int64_t jobs = 0, most = 0, held = 0; /* held: jobs of the last step that decodes */
    int status = QCC_OK;
    *result = stream;
    if (!stream || !relative) goto memory;
    stream->begin = calloc((size_t)program->step_count + 1, sizeof *stream->begin);
    stream->jobs = calloc((size_t)program->operand_count + 1, sizeof *stream->jobs);
    stream->decoders = calloc((size_t)threads, sizeof *stream->decoders);
    if (!stream->begin || !stream->jobs || !stream->decoders) goto memory;
    if ((status = qcc_image_open(&stream->image, image, bytes))) goto done;
    if (stream->image.recipe_count) {
        status = qcc_fail(QCC_BAD_WEIGHTS, "weights that are made while a model is loaded cannot be decoded while it runs; compile with --decode stream");
        goto done;
    }
    for (int i = 0; i < threads; i++) qcc_decoder_start(&stream->decoders[i], qcc_coding_isa());
    for (int64_t s = 0; s < program->step_count; s++) {
        const qcc_step *step = &program->steps[s];
        int64_t tiles = 0, used = 0;
        stream->begin[s] = jobs;
        for (int64_t i = step->operand_begin; i < step->operand_begin + step->operand_count; i++) {
            if (program->operands[i].space != QCC_WEIGHTS) continue;
            int found = resolve(stream, stream->begin[s], &jobs, &tiles, &used, program->operands[i].offset_bytes, &pointers[i]);
            if (!found) {
                status = qcc_fail(QCC_BAD_PROGRAM, "operand %lld is in no entry of the coded weights", (long long)i);
                goto done;
            }
            relative[i] = found == 2;
        }
        if (used > most) most = used;
        if (repeats(stream->jobs + stream->begin[s], jobs - stream->begin[s], held)) /* as steps of a recurrent layer do */
            jobs = stream->begin[s];
        else if (jobs > stream->begin[s])
            held = jobs - stream->begin[s];
    }
    stream->begin[program->step_count] = jobs;
    stream->place = qcc_pages((size_t)(most + QCC_ALIGNMENT)); /* slack for wide loads behind the last */
    if (!stream->place) goto memory;
    memset(stream->place, 0, (size_t)(most + QCC_ALIGNMENT));
    for (int64_t i = 0; i < jobs; i++) stream->jobs[i].target = stream->place + (uintptr_t)stream->jobs[i].target;
    for (int64_t i = 0; i < program->operand_count; i++)
        if (relative[i]) pointers[i] = stream->place + (uintptr_t)pointers[i];
done:
    free(relative);
    return status;
memory:
    free(relative);
    return qcc_fail(QCC_NO_MEMORY, "out of memory for decoding weights while running");
}

void qcc_stream_destroy(struct qcc_stream *stream) {
    if (!stream) return;
    free(stream->begin);
    free(stream->jobs);
    free(stream->place);
    free(stream->decoders);
    free(stream);
}

int qcc_stream_has(const struct qcc_stream *stream, int64_t step) { return stream->begin[step] < stream->begin[step + 1]; }

void qcc_stream_decode(struct qcc_stream *stream, int64_t step, int thread, int threads) {
    int64_t first = stream->begin[step];
    if (!qcc_image_decode(&stream->image, stream->jobs + first, stream->begin[step + 1] - first, thread, threads, &stream->decoders[thread]))
        atomic_store(&stream->damaged, 1);
}

int qcc_stream_is_damaged(struct qcc_stream *stream) { return atomic_load(&stream->damaged); }
