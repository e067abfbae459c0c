/* Muon over all matrices in one call, each by one thread. Twin: Muon._step_one in training/muon.py.
 *
 * A matrix lies tall in scratch, X [N, M] with N >= M, so that X'X, its square and X times that all read rows. They are
 * filled with zeros to an odd number of panels: an even one would lay a panel's rows onto few lines of the cache. */
#include "kernels.h"
#include "products.h"

typedef struct { long n, m, row; float *x, *other, *square, *polynomial; } tall_t;

static long lay_tall(tall_t *t, float *base, const struct muon_place *place) {
    long used = 0;
    t->m = at_most(place->height, place->width);
    t->n = place->height + place->width - t->m;
    t->row = whole(t->m, TILE_N) | TILE_N;
    t->x = take(&base, &used, t->n * t->row);
    t->other = take(&base, &used, t->n * t->row);
    t->square = take(&base, &used, t->row * t->row);
    t->polynomial = take(&base, &used, t->row * t->row);
    return used;
}

/* to = the transpose of a square of LANES rows and columns: in each step, blocks beside the diagonal change places. */
static inline void turn(const float *from, float *to, long row) {
    vec r[LANES];
    for (long i = 0; i < LANES; i++) r[i] = load(from + i * row);
#define EXCHANGE(i, apart, SWAP)                                                                                       \
    { vec above = r[i], below = r[i + apart];                                                                          \
      r[i] = choose((lane & apart) == 0, above, SWAP(below));                                                          \
      r[i + apart] = choose((lane & apart) == 0, SWAP(above), below); }
    EXCHANGE(0, 4, HALVES) EXCHANGE(1, 4, HALVES) EXCHANGE(2, 4, HALVES) EXCHANGE(3, 4, HALVES)
    EXCHANGE(0, 2, PAIRS) EXCHANGE(1, 2, PAIRS) EXCHANGE(4, 2, PAIRS) EXCHANGE(5, 2, PAIRS)
    EXCHANGE(0, 1, NEIGHBOURS) EXCHANGE(2, 1, NEIGHBOURS) EXCHANGE(4, 1, NEIGHBOURS) EXCHANGE(6, 1, NEIGHBOURS)
    for (long i = 0; i < LANES; i++) store(to + i * row, r[i]);
}

/* The product with at most WIDE columns of B, in rows as long as those of C: as many of them at a time as stay in the
 * fastest cache, where they are read as they lie. */
static void by_lines(const float *a, long ars, long acs, const float *b, float *c, long row, long m, long columns,
                     long k) {
    for (long k0 = 0; k0 < k; k0 += DEEP_BOTH)
        by_panel(a + k0 * acs, ars, acs, b + k0 * row, row, TILE_N, c, row, m, columns, at_most(DEEP_BOTH, k - k0),
                 k0 > 0);
}

/* C[M, M] = A B + diagonal I where that is symmetric: panels are computed down to the diagonal and then mirrored. */
static void symmetric(const float *a, long ars, long acs, const float *b, float *c, float diagonal, long m, long k,
                      long row) {
    for (long n0 = 0; n0 < m; n0 += WIDE) {
        long columns = at_most(WIDE, row - n0), left = at_most(m, n0 + TILE_N), right = at_most(m, n0 + columns);
        by_lines(a, ars, acs, b + n0, c + n0, row, left, columns, k);
        by_lines(a + left * ars, ars, acs, b + left, c + left * row + left, row, right - left, TILE_N, k);
    }
    for (long i = 0; i < m; i++) c[i * row + i] += diagonal;
    for (long i = TILE_N; i < m; i += LANES)
        for (long j = 0; j < i - i % TILE_N; j += LANES) turn(c + j * row + i, c + i * row + j, row);
}

/* Newton and Schulz's iteration, by an odd polynomial of the fifth degree, on x, which is scaled to a norm of one
 * first; x points to the result times `grown`. With S = X'X the polynomial is X (first I + third S + fifth S^2), and
 * that is a square and a multiple of I: (rS + third / 2r I)^2 + (first - third^2 / 4 fifth) I where r^2 = fifth > 0. So
 * that X'X is rS, X is grown by the root of r. */
static float orthogonalise(tall_t *t, float first, float third, float fifth, int iterations) {
    long n = t->n, m = t->m, row = t->row;
    float squares = 0, root = sqrtf(fifth), grown = sqrtf(root);
    for (long i = 0; i < n; i++) squares += dot(t->x + i * row, t->x + i * row, m);
    float scale = grown / (sqrtf(squares) + 1e-7f);
    for (long i = 0; i < n; i++) {
        for (long j = 0; j < m; j++) t->x[i * row + j] *= scale;
        for (long j = m; j < row; j++) t->x[i * row + j] = 0.0f;
    }
    for (int iteration = 0; iteration < iterations; iteration++) {
        symmetric(t->x, 1, row, t->x, t->square, third / (2.0f * root), m, n, row);
        symmetric(t->square, row, 1, t->square, t->polynomial, first - third * third / (4.0f * fifth), m, m, row);
        for (long n0 = 0; n0 < m; n0 += WIDE)
            by_lines(t->x, row, 1, t->polynomial + n0, t->other + n0, row, n, at_most(WIDE, row - n0), m);
        float *swap = t->x;
        t->x = t->other;
        t->other = swap;
    }
    return grown;
}

/* The momentum of a matrix takes its gradient, and x the two together, as Nesterov has it. */
static INLINE void take_gradient(float *held, const float *g, float *x, const struct muon_place *place, float momentum,
                                 const long down, const long across) {
    for (long i = 0; i < place->height; i++)
        for (long j = 0; j < place->width; j++) {
            float *old = held + i * place->length + j, value = g[i * place->length + j];
            *old += (1.0f - momentum) * (value - *old);
            x[i * down + j * across] = value + momentum * (*old - value);
        }
}

static INLINE void take_step(float *p, const float *x, const struct muon_place *place, float keep, float step,
                             const long down, const long across) {
    for (long i = 0; i < place->height; i++)
        for (long j = 0; j < place->width; j++)
            p[i * place->length + j] = p[i * place->length + j] * keep - step * x[i * down + j * across];
}

/* One step of `count` matrices, which `places` finds in the parameters; an update's root mean square is about
 * rate * scale. */
int muon(float *const *parameters, const float *const *gradients, float *const *momenta,
         const struct muon_place *places, long count, float rate, float decay, float momentum, float scale,
         float first, float third, float fifth, int iterations, int threads) {
    tall_t t;
    long most = 0;
    for (long i = 0; i < count; i++) {
        long used = lay_tall(&t, NULL, places + i);
        most = used > most ? used : most;
    }
    float *each_scratch = for_each_thread(threads, most);
    if (each_scratch)
#pragma omp parallel num_threads(threads) if (threads > 1) private(t)
    {
        float *scratch = own_part(each_scratch, most);
#pragma omp for schedule(dynamic)
        for (long i = 0; i < count; i++) {
            const struct muon_place *place = places + i;
            float *p = parameters[place->parameter] + place->first;
            float *held = momenta[place->parameter] + place->first;
            const float *g = gradients[place->parameter] + place->first;
            lay_tall(&t, scratch, place);
            int tall = place->height >= place->width; /* told apart, so that a tall one goes by whole vectors */
            if (tall) take_gradient(held, g, t.x, place, momentum, t.row, 1);
            else take_gradient(held, g, t.x, place, momentum, 1, t.row);
            float grown = orthogonalise(&t, first, third, fifth, iterations);
            float keep = 1.0f - rate * decay, step = rate * scale * sqrtf((float)t.n) / grown;
            if (tall) take_step(p, t.x, place, keep, step, t.row, 1);
            else take_step(p, t.x, place, keep, step, 1, t.row);
        }
    }
    free(each_scratch);
    return DONE_IF(each_scratch);
}
