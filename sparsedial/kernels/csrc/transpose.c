/* A matrix of weights copied across, block by block: each cache line is read once and written once. Twin: Tensor.t */
#include "kernels.h"

#define BLOCK 16 /* rows and columns; of float32 a cache line */

#define COPY_ACROSS(block, strip, type)                                                                                \
    static inline void block(const type *from, long from_row, type *to, long to_row, long rows, long columns) {        \
        type turned[BLOCK][BLOCK]; /* lines of `to` may displace each other from the cache while they are written */   \
        for (long i = 0; i < rows; i++)                                                                                \
            for (long j = 0; j < columns; j++) turned[j][i] = from[i * from_row + j];                                  \
        for (long j = 0; j < columns; j++) memcpy(to + j * to_row, turned[j], sizeof(type) * rows);                    \
    }                                                                                                                  \
    static inline void strip(const type *from, long from_row, type *to, long to_row, long rows, long columns) {        \
        for (long j = 0; j < columns; j += BLOCK) {                                                                    \
            long some = at_most(BLOCK, columns - j);                                                                   \
            if (rows == BLOCK && some == BLOCK) block(from + j, from_row, to + j * to_row, to_row, BLOCK, BLOCK);      \
            else block(from + j, from_row, to + j * to_row, to_row, rows, some);                                       \
        }                                                                                                              \
    }
COPY_ACROSS(floats_block, floats_strip, uint32_t)
COPY_ACROSS(halves_block, halves_strip, uint16_t)

/* to [columns, rows] = the transpose of values [rows, columns]; theirs lie `to_row` and `values_row` weights apart. */
void transpose(const void *values, void *to, long rows, long columns, long values_row, long to_row, int half,
               int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long i = 0; i < rows; i += BLOCK) {
        long some = at_most(BLOCK, rows - i), from = i * values_row;
        if (half) halves_strip((const uint16_t *)values + from, values_row, (uint16_t *)to + i, to_row, some, columns);
        else floats_strip((const uint32_t *)values + from, values_row, (uint32_t *)to + i, to_row, some, columns);
    }
}
