/* The router: scores, choice, gates and the two small losses. Twin: reference_route. */
#include "kernels.h"

/* Scores of one token's logits, their log-sum-exp and their sum. */
static void score_row(const float *logits, float *scores, float *normaliser, float *total, long e, int sigmoid) {
    float most = largest(logits, e), sum = 0, all = 0;
    vec sums = splat(0.0f), alls = splat(0.0f);
    long i = 0;
    for (; i + LANES <= e; i += LANES) {
        vec shifted = vexp(load(logits + i) - most);
        vec s = sigmoid ? 1.0f / (1.0f + vexp(-load(logits + i))) : shifted;
        store(scores + i, s);
        sums += shifted;
        alls += s;
    }
    sum = sum_of(sums);
    all = sum_of(alls);
    for (; i < e; i++) {
        float shifted = exp_of(logits[i] - most);
        sum += shifted;
        scores[i] = sigmoid ? 1.0f / (1.0f + exp_of(-logits[i])) : shifted;
        all += scores[i];
    }
    *normaliser = most + logf(sum);
    *total = all;
    if (!sigmoid) {
        float inverse = 1.0f / sum;
        for (i = 0; i < e; i++) scores[i] *= inverse;
        *total = 1.0f;
    }
}

/* Indices of the top_k largest of e values, largest first, the lower index where two are equal. `values`, filled up
 * with minus infinity to whole vectors, loses what was picked. */
static void pick(float *values, int64_t *mine, long e, long top_k) {
    const ivec lanes = {0, 1, 2, 3, 4, 5, 6, 7};
    for (long k = 0; k < top_k; k++) {
        vec best = load(values);
        ivec at = lanes;
        for (long i = LANES; i < e; i += LANES) {
            vec v = load(values + i);
            ivec more = v > best;
            best = choose(more, v, best);
            at = ((lanes + (int32_t)i) & more) | (at & ~more);
        }
        float top = best[0];
        int32_t index = at[0];
        for (int lane = 1; lane < LANES; lane++)
            if (best[lane] > top || (best[lane] == top && at[lane] < index)) { top = best[lane]; index = at[lane]; }
        mine[k] = index;
        values[index] = -INFINITY;
    }
}

/* kept [B, E] counts and then f_i; mean [B, E] of each expert's share of a token's scores; loss: balance times the
 * sequences' mean of their sum of products, and z times the mean square of the log-sum-exp. */
void route_forward(const float *logits, const float *bias, float *scores, int64_t *chosen, float *gates,
                   float *normaliser, float *total, float *picked_sum, float *kept, float *mean, float *loss,
                   long sequences, long positions, long e, long top_k, int sigmoid, int normalize, float scaling,
                   float balance, float z, int threads) {
    long whole = (e + LANES - 1) / LANES * LANES;
    float even = (float)e / (float)(positions * top_k);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *values = malloc(sizeof(float) * whole);
#pragma omp for schedule(static)
        for (long b = 0; b < sequences; b++) {
            float *kept_row = kept + b * e, *mean_row = mean + b * e;
            memset(kept_row, 0, sizeof(float) * e);
            memset(mean_row, 0, sizeof(float) * e);
            for (long t = b * positions; t < (b + 1) * positions; t++) {
                float *restrict row = scores + t * e;
                int64_t *mine = chosen + t * top_k;
                score_row(logits + t * e, row, normaliser + t, total + t, e, sigmoid);
                axpy(mean_row, row, 1.0f / (total[t] * (float)positions), e);
                memcpy(values, row, sizeof(float) * e);
                if (bias) axpy(values, bias, 1.0f, e);
                for (long i = e; i < whole; i++) values[i] = -INFINITY;
                pick(values, mine, e, top_k);
                float sum = 1e-20f;
                for (long k = 0; k < top_k; k++) { sum += row[mine[k]]; kept_row[mine[k]] += 1.0f; }
                picked_sum[t] = sum;
                float weight = normalize ? scaling / sum : scaling;
                for (long k = 0; k < top_k; k++) gates[t * top_k + k] = row[mine[k]] * weight;
            }
            for (long i = 0; i < e; i++) kept_row[i] *= even;
        }
        free(values);
    }
    double products = 0, squares = 0;
    for (long i = 0; i < sequences * e; i++) products += (double)kept[i] * mean[i];
    for (long t = 0; t < sequences * positions; t++) squares += (double)normaliser[t] * normaliser[t];
    *loss = (float)(balance * products / (double)sequences + z * squares / (double)(sequences * positions));
}

void route_backward(const float *dgates, const float *logits, const float *scores, const int64_t *chosen,
                    const float *gates, const float *normaliser, const float *total, const float *picked_sum,
                    const float *kept, float *dlogits, long sequences, long positions, long e, long top_k, int sigmoid,
                    int normalize, float scaling, float balance, float z, int threads) {
    long tokens = sequences * positions;
    float weight = balance / (float)tokens;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (long t = 0; t < tokens; t++) {
        const float *restrict row = scores + t * e, *restrict kept_row = kept + t / positions * e;
        const float *restrict in = logits + t * e;
        const int64_t *mine = chosen + t * top_k;
        float *restrict out = dlogits + t * e;
        float inverse = weight / total[t], inner = dot(row, kept_row, e) / total[t];
        for (long i = 0; i < e; i++) out[i] = (kept_row[i] - inner) * inverse;
        float together = 0;
        if (normalize)
            for (long k = 0; k < top_k; k++) together += dgates[t * top_k + k] * gates[t * top_k + k];
        for (long k = 0; k < top_k; k++) {
            float grad = dgates[t * top_k + k] * scaling - together;
            out[mine[k]] += normalize ? grad / picked_sum[t] : grad;
        }
        float pull = normaliser[t] * 2.0f * z / (float)tokens;
        if (sigmoid) {
            long i = 0;
            for (; i + LANES <= e; i += LANES) {
                vec s = load(row + i), probability = vexp(load(in + i) - normaliser[t]);
                store(out + i, load(out + i) * s * (1.0f - s) + probability * pull);
            }
            for (; i < e; i++) out[i] = out[i] * row[i] * (1.0f - row[i]) + exp_of(in[i] - normaliser[t]) * pull;
        } else {
            float mixed = dot(out, row, e);
            for (long i = 0; i < e; i++) out[i] = row[i] * (out[i] - mixed) + row[i] * pull;
        }
    }
}
