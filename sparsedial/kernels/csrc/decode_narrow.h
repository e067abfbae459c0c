/* Products of a few rows with the matrices of narrow experts. As stream.h, but each matrix is one piece of memory that
 * is read through to its end, and so is what follows it. Sixteen rows of a few vectors, which stream.h fetches ahead,
 * would come too late: here a fixed number of bytes is on its way, across matrices and experts. */
#pragma once
#include "stream.h"

/* A pair of feed-forward matrices (an expert, the shared ones, a dense layer) and its rows: `count` from `first`. */
typedef struct { const void *w_in, *w_down; long width, first, count; int half; } pair_t;

#define NARROW 64           /* columns of an input matrix at most */
#define AT_A_TIME 64        /* rows of a matrix that are multiplied before the next are fetched */
#define MOST_AHEAD 131072   /* bytes */
#define FETCHED_AHEAD 16384 /* besides a whole output matrix, whose rows are all read at once */
#define VECTORS 4           /* of a tile: two rows of sums stay in registers */

static int is_narrow(const pair_t *pair, long d) {
    return 2 * pair->width <= NARROW && 2 * pair->width % LANES == 0 && d % LANES == 0;
}

/* What is fetched next: the rest of a matrix, then those of the pairs up to `end`, then first rows of `following`. */
typedef struct {
    const char *at;
    long lines, owed; /* lines left of this matrix; bytes that are multiplied already and were not replaced */
    const pair_t *pair, *end;
    int down; /* which of the pair's matrices it is */
    long d, first; /* the first pair's first row, whose scratch serves all: so it stays in the cache */
    ahead_t following;
} line_t;

static void begin_matrix(line_t *line) {
    const pair_t *pair = line->pair;
    long values = line->d * pair->width * (line->down ? 1 : 2);
    line->at = line->down ? pair->w_down : pair->w_in;
    line->lines = (values * weight_bytes(pair->half) + LINE_BYTES - 1) / LINE_BYTES;
}

/* Fetches as many bytes as are multiplied next. */
static void fetch_on(line_t *line, long bytes) {
    long count = (line->owed + bytes) / LINE_BYTES;
    line->owed = (line->owed + bytes) % LINE_BYTES;
    while (count > 0 && line->pair < line->end) {
        long some = at_most(line->lines, count);
        fetch(line->at, some * LINE_BYTES);
        line->at += some * LINE_BYTES;
        line->lines -= some;
        count -= some;
        if (line->lines) return;
        line->pair += line->down;
        line->down = !line->down;
        if (line->pair < line->end) begin_matrix(line);
    }
    fetch_lines(&line->following, count);
}

/* The line of the pairs from `pair` up to `end`, whose first bytes are fetched. */
static line_t begin_line(const pair_t *pair, const pair_t *end, long d, const piece_t *following) {
    line_t line = {.pair = pair, .end = end, .d = d, .first = pair->first};
    if (following->w) line.following = coming(following, following->rows.from, following->columns.from);
    begin_matrix(&line);
    fetch_on(&line, at_most(MOST_AHEAD, FETCHED_AHEAD + d * pair->width * weight_bytes(pair->half)));
    return line;
}

/* out[row] = or += in[row] W over some rows of W and `vectors` of its columns, for one row or two. */
static INLINE void tile_of(const float *x, long in_row, const void *w, long n, float *y, long out_row, const int rows,
                           const int vectors, long depth, int add, const int half) {
    vec sums[2][VECTORS];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sums[r][v] = splat(0.0f);
    for (long k = 0; k < depth; k++)
        for (int v = 0; v < vectors; v++) {
            vec of_row = weights(w, k * n + v * LANES, LANES, half);
            IN_REGISTER(of_row);
            for (int r = 0; r < rows; r++) sums[r][v] += x[r * in_row + k] * of_row;
        }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            float *at = y + r * out_row + v * LANES;
            store(at, add ? load(at) + sums[r][v] : sums[r][v]);
        }
}

static INLINE void tile_rows(const float *x, long in_row, const void *w, long n, float *y, long out_row, long rows,
                             const int vectors, long depth, int add, const int half) {
    if (rows == 1) tile_of(x, in_row, w, n, y, out_row, 1, vectors, depth, add, half);
    else tile_of(x, in_row, w, n, y, out_row, 2, vectors, depth, add, half);
}

static INLINE void narrow_tile(const float *x, long in_row, const void *w, long n, float *y, long out_row, long rows,
                               long vectors, long depth, int add, const int half) {
    if (vectors == 1) tile_rows(x, in_row, w, n, y, out_row, rows, 1, depth, add, half);
    else if (vectors == 2) tile_rows(x, in_row, w, n, y, out_row, rows, 2, depth, add, half);
    else if (vectors == 3) tile_rows(x, in_row, w, n, y, out_row, rows, 3, depth, add, half);
    else tile_rows(x, in_row, w, n, y, out_row, rows, 4, depth, add, half);
}

static NOINLINE void tile_of_floats(const float *x, long in_row, const void *w, long n, float *y, long out_row,
                                    long rows, long vectors, long depth, int add) {
    narrow_tile(x, in_row, w, n, y, out_row, rows, vectors, depth, add, 0);
}

static NOINLINE void tile_of_halves(const float *x, long in_row, const void *w, long n, float *y, long out_row,
                                    long rows, long vectors, long depth, int add) {
    narrow_tile(x, in_row, w, n, y, out_row, rows, vectors, depth, add, 1);
}

/* As `stream`, of a whole matrix whose columns are whole vectors, while what comes next in its line is fetched. */
static void through_narrow(const float *in, long in_row, float *out, long out_row, long count, piece_t p, int add,
                           line_t *line) {
    for (long i = 0; i < p.rows.to; i += AT_A_TIME) {
        long deep = at_most(AT_A_TIME, p.rows.to - i);
        for (long j = 0, columns; j < p.n; j += columns) {
            columns = at_most(VECTORS * LANES, p.n - j);
            const void *w = weight_at(p.w, i * p.n + j, p.half);
            fetch_on(line, deep * columns * weight_bytes(p.half));
            for (long row = 0; row < count; row += 2) {
                const float *x = in + row * in_row + i;
                float *y = out + row * out_row + j;
                long rows = at_most(2, count - row);
                if (p.half) tile_of_halves(x, in_row, w, p.n, y, out_row, rows, columns / LANES, deep, add || i);
                else tile_of_floats(x, in_row, w, p.n, y, out_row, rows, columns / LANES, deep, add || i);
            }
        }
    }
}
