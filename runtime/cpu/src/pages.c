/* Memory for what a model computes with. */
#define _GNU_SOURCE
#include "internal.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { PAGE = 4096, HUGE_PAGE = 2 << 20 };

static size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

/* Small pages lie anywhere in memory, so that what fits the second-level cache may still collide there, and walking their tables costs
 * what streams up to half of the bandwidth on two threads (more on a virtual machine). */
void *qcc_pages(size_t bytes) {
    if (bytes < HUGE_PAGE) return aligned_alloc(PAGE, round_up(bytes, PAGE));
    void *block = aligned_alloc(HUGE_PAGE, round_up(bytes, HUGE_PAGE));
    if (block) madvise(block, round_up(bytes, HUGE_PAGE), MADV_HUGEPAGE);
    return block;
}
