/* The arena: no two buffers that are alive together share a byte, and the peak is what the plan says it is. */
#include "clattn/clattn.h"
#include "harness.h"
#include "plan/plan.h"

#include <stdio.h>
#include <string.h>

static bool alive_together(const clattn__arena_buffer *a, const clattn__arena_buffer *b) {
    return a->first <= b->last && b->first <= a->last;
}

static void check_layout(clattn__arena_buffer *buffers, int count, const char *what) {
    size_t peak = 0, highest = 0, busiest = 0;
    REQUIRE(clattn__arena_layout(buffers, count, 64, &peak), "%s", what);
    for (int i = 0; i < count; i++) {
        CHECK(buffers[i].offset % 64 == 0, "%s: buffer %d at %zu", what, i, buffers[i].offset);
        if (buffers[i].offset + buffers[i].bytes > highest) highest = buffers[i].offset + buffers[i].bytes;
        for (int j = 0; j < i; j++) {
            bool apart = buffers[i].offset + buffers[i].bytes <= buffers[j].offset ||
                         buffers[j].offset + buffers[j].bytes <= buffers[i].offset;
            CHECK(apart || !alive_together(&buffers[i], &buffers[j]), "%s: buffers %d and %d overlap", what, i, j);
        }
    }
    for (int s = 0; s < 64; s++) {
        size_t alive = 0;
        for (int i = 0; i < count; i++)
            if (buffers[i].first <= s && s <= buffers[i].last) alive += buffers[i].bytes;
        if (alive > busiest) busiest = alive;
    }
    CHECK(peak == highest, "%s: peak %zu, highest byte %zu", what, peak, highest);
    CHECK(peak >= busiest, "%s: peak %zu, but step needs %zu", what, peak, busiest);
}

static void random_lifetimes(void) {
    for (uint64_t seed = 1; seed <= 200; seed++) {
        clattn_random random = {seed};
        clattn__arena_buffer buffers[40];
        memset(buffers, 0, sizeof buffers);
        int count = 1 + (int)clattn_random_below(&random, 40);
        for (int i = 0; i < count; i++) {
            buffers[i].bytes = (size_t)clattn_random_below(&random, 5000);
            buffers[i].first = (int)clattn_random_below(&random, 60);
            buffers[i].last = buffers[i].first + (int)clattn_random_below(&random, 64 - buffers[i].first);
        }
        char what[32];
        snprintf(what, sizeof what, "seed %llu", (unsigned long long)seed);
        check_layout(buffers, count, what);
    }
}

static void disjoint_lifetimes_share(void) {
    clattn__arena_buffer buffers[3] = {{.bytes = 1000, .first = 0, .last = 1},
                                       {.bytes = 1000, .first = 2, .last = 3},
                                       {.bytes = 1000, .first = 4, .last = 4}};
    size_t peak;
    REQUIRE(clattn__arena_layout(buffers, 3, 64, &peak), "three buffers in turn");
    CHECK(peak == 1000, "peak %zu", peak);
    REQUIRE(clattn__arena_layout(buffers, 0, 64, &peak), "no buffers");
    CHECK(peak == 0, "peak %zu", peak);
}

static void allowed_pairs(void) {
    for (int64_t Sq = 0; Sq <= 9; Sq++)
        for (int64_t Sk = 0; Sk <= 9; Sk++)
            for (int64_t offset = -4; offset <= 4; offset++)
                for (int64_t left = -1; left <= 2; left++)
                    for (int64_t right = -1; right <= 2; right++)
                        for (int causal = 0; causal <= 1; causal++) {
                            double want = 0;
                            for (int64_t i = 0; i < Sq; i++)
                                for (int64_t j = 0; j < Sk; j++)
                                    want += (!causal || j <= i + offset) && (left < 0 || j >= i + offset - left) &&
                                            (right < 0 || j <= i + offset + right);
                            double got = clattn__allowed_pairs(Sq, Sk, causal, offset, left, right);
                            if (got != want) {
                                CHECK(false, "Sq %d Sk %d offset %d window %d %d causal %d: %g, not %g", (int)Sq,
                                      (int)Sk, (int)offset, (int)left, (int)right, causal, got, want);
                                return;
                            }
                        }
    CHECK(clattn__allowed_pairs(9, 9, false, 3, INT64_MAX, INT64_MAX) == 81, "a window without end");
    CHECK(clattn__allowed_pairs(9, 9, true, -9, INT64_MAX, INT64_MAX) == 0, "a window without end, rows without keys");
}

int main(int argc, char **argv) {
    static const clattn_test arena[] = {
        {"random_lifetimes", random_lifetimes}, {"disjoint_lifetimes_share", disjoint_lifetimes_share}, {NULL, NULL}};
    static const clattn_test work[] = {{"allowed_pairs", allowed_pairs}, {NULL, NULL}};
    static const clattn_test_suite suites[] = {{"arena", arena}, {"work", work}, {NULL, NULL}};
    return clattn_test_main(suites, argc, argv);
}
