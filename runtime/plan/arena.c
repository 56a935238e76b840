/* Offsets for buffers with known lifetimes. Largest first, each at the lowest offset where it meets no buffer that is
 * alive at the same time (greedy by size: Pisarchyk and Lee 2020, arXiv:2001.03288). */
#include "plan/plan.h"

static bool alive_together(const clattn__arena_buffer *a, const clattn__arena_buffer *b) {
    return a->first <= b->last && b->first <= a->last;
}

static size_t lowest_offset(const clattn__arena_buffer *buffers, const bool *placed, int count,
                            const clattn__arena_buffer *one, size_t alignment) {
    size_t offset = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < count; i++) {
            const clattn__arena_buffer *other = &buffers[i];
            if (!placed[i] || !alive_together(one, other)) continue;
            if (offset < other->offset + other->bytes && other->offset < offset + one->bytes) {
                offset = (other->offset + other->bytes + alignment - 1) & ~(alignment - 1);
                moved = true;
            }
        }
    }
    return offset;
}

bool clattn__arena_layout(clattn__arena_buffer *buffers, int count, size_t alignment, size_t *peak) {
    *peak = 0;
    if (count == 0) return true;
    bool *placed = clattn__alloc((size_t)count, sizeof *placed);
    if (!placed) return false;
    bool fits = true;
    for (int round = 0; round < count && fits; round++) {
        int largest = -1;
        for (int i = 0; i < count; i++)
            if (!placed[i] && (largest < 0 || buffers[i].bytes > buffers[largest].bytes)) largest = i;
        clattn__arena_buffer *one = &buffers[largest];
        one->offset = lowest_offset(buffers, placed, count, one, alignment);
        placed[largest] = true;
        size_t end;
        fits = clattn__add(one->offset, one->bytes, &end) && end <= SIZE_MAX / 2;
        if (fits && end > *peak) *peak = end;
    }
    clattn__free(placed);
    return fits;
}
