// Group normalisation with optional SiLU, GEGLU and their gradients over bfloat16, channels last.
// PyTorch 1.13 takes longer for these than for the convolutions between them.
// cc -Ofast -march=native -fopenmp -shared -fPIC norm.c -o norm.so -lm
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef uint16_t bf16;

static inline float up(bf16 v) {
    union { uint32_t i; float f; } u = {(uint32_t)v << 16};
    return u.f;
}

static inline bf16 down(float v) {
    union { float f; uint32_t i; } u = {v};
    return (bf16)((u.i + 0x7fff + ((u.i >> 16) & 1)) >> 16);
}

#define WIDEST 2048

// exp(-z), finite: with -Ofast, 1/(1+inf) may be NaN.
static inline float fall(float z) { return expf(z > -80 ? -z : 80); }

// x, y [batch, cells, channels]; stats [batch, groups, 2] gets mean and 1/deviation. gamma and beta are [channels], or with
// own [batch, channels].
void norm_forward(const bf16 *x, const float *gamma, const float *beta, bf16 *y, float *stats,
                  long batch, long cells, long channels, long groups, float eps, int silu, int own) {
    long size = channels / groups;
#pragma omp parallel for schedule(static)
    for (long b = 0; b < batch; b++) {
        float sum[WIDEST] = {0}, square[WIDEST] = {0}, a[WIDEST], c[WIDEST];
        const bf16 *row = x + b * cells * channels;
        const float *gain = gamma + (own ? b * channels : 0), *bias = beta + (own ? b * channels : 0);
        for (long i = 0; i < cells; i++)
            for (long j = 0; j < channels; j++) {
                float v = up(row[i * channels + j]);
                sum[j] += v;
                square[j] += v * v;
            }
        for (long g = 0; g < groups; g++) {
            float s = 0, q = 0, count = (float)(cells * size);
            for (long j = g * size; j < (g + 1) * size; j++) s += sum[j], q += square[j];
            float mean = s / count, variance = q / count - mean * mean;
            float inverse = 1 / sqrtf((variance > 0 ? variance : 0) + eps);
            stats[(b * groups + g) * 2] = mean;
            stats[(b * groups + g) * 2 + 1] = inverse;
            for (long j = g * size; j < (g + 1) * size; j++) a[j] = gain[j] * inverse, c[j] = bias[j] - mean * a[j];
        }
        bf16 *out = y + b * cells * channels;
        for (long i = 0; i < cells; i++) {
            if (silu)
                for (long j = 0; j < channels; j++) {
                    float z = up(row[i * channels + j]) * a[j] + c[j];
                    out[i * channels + j] = down(z / (1 + fall(z)));
                }
            else
                for (long j = 0; j < channels; j++) out[i * channels + j] = down(up(row[i * channels + j]) * a[j] + c[j]);
        }
    }
}

// dgamma, dbeta, of the shape of gamma and beta, are added to and must start at 0.
void norm_backward(const bf16 *dy, const bf16 *x, const float *gamma, const float *beta, const float *stats, bf16 *dx,
                   float *dgamma, float *dbeta, long batch, long cells, long channels, long groups, int silu, int own) {
    long size = channels / groups;
#pragma omp parallel
    {
        float *dz = malloc(sizeof(float) * cells * channels);
        float mine_g[WIDEST] = {0}, mine_b[WIDEST] = {0};
#pragma omp for schedule(static)
        for (long b = 0; b < batch; b++) {
            float sum[WIDEST] = {0}, dot[WIDEST] = {0}, a[WIDEST], c[WIDEST], mean[WIDEST], inverse[WIDEST];
            float p[WIDEST], q[WIDEST], r[WIDEST];
            const float *gain = gamma + (own ? b * channels : 0), *bias = beta + (own ? b * channels : 0);
            for (long j = 0; j < channels; j++) {
                const float *s = stats + (b * groups + j / size) * 2;
                mean[j] = s[0], inverse[j] = s[1], a[j] = gain[j] * s[1], c[j] = bias[j] - s[0] * a[j];
            }
            const bf16 *row = x + b * cells * channels, *up_row = dy + b * cells * channels;
            for (long i = 0; i < cells; i++) {
                float *d = dz + i * channels;
                for (long j = 0; j < channels; j++) {
                    float v = up(row[i * channels + j]), g = up(up_row[i * channels + j]);
                    if (silu) {
                        float z = v * a[j] + c[j], s = 1 / (1 + fall(z));
                        g *= s * (1 + z * (1 - s));
                    }
                    d[j] = g;
                    sum[j] += g;
                    dot[j] += g * (v - mean[j]) * inverse[j];
                }
            }
            if (own)
                for (long j = 0; j < channels; j++) dbeta[b * channels + j] += sum[j], dgamma[b * channels + j] += dot[j];
            else
                for (long j = 0; j < channels; j++) mine_b[j] += sum[j], mine_g[j] += dot[j];
            for (long g = 0; g < groups; g++) {
                float s = 0, t = 0, count = (float)(cells * size);
                for (long j = g * size; j < (g + 1) * size; j++) s += gain[j] * sum[j], t += gain[j] * dot[j];
                s /= count, t /= count;
                for (long j = g * size; j < (g + 1) * size; j++) {
                    // dx = inverse·(gamma·dz − s − normed·t)
                    p[j] = inverse[j] * gain[j], q[j] = -inverse[j] * inverse[j] * t;
                    r[j] = -inverse[j] * s + inverse[j] * inverse[j] * t * mean[j];
                }
            }
            bf16 *out = dx + b * cells * channels;
            for (long i = 0; i < cells; i++)
                for (long j = 0; j < channels; j++)
                    out[i * channels + j] = down(p[j] * dz[i * channels + j] + q[j] * up(row[i * channels + j]) + r[j]);
        }
#pragma omp critical
        if (!own)
            for (long j = 0; j < channels; j++) dgamma[j] += mine_g[j], dbeta[j] += mine_b[j];
        free(dz);
    }
}

// x [rows, 2·width] → y [rows, width] = x1·gelu(x2), gelu with erf.
void geglu_forward(const bf16 *x, bf16 *y, long rows, long width) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < rows; i++) {
        const bf16 *value = x + i * 2 * width, *gate = value + width;
        for (long j = 0; j < width; j++) {
            float g = up(gate[j]);
            y[i * width + j] = down(up(value[j]) * 0.5f * g * (1 + erff(g * 0.70710678f)));
        }
    }
}

void geglu_backward(const bf16 *dy, const bf16 *x, bf16 *dx, long rows, long width) {
#pragma omp parallel for schedule(static)
    for (long i = 0; i < rows; i++) {
        const bf16 *value = x + i * 2 * width, *gate = value + width;
        bf16 *dvalue = dx + i * 2 * width, *dgate = dvalue + width;
        for (long j = 0; j < width; j++) {
            float g = up(gate[j]), d = up(dy[i * width + j]);
            float phi = 0.5f * (1 + erff(g * 0.70710678f)), density = 0.39894228f * expf(-0.5f * g * g);
            dvalue[j] = down(d * g * phi);
            dgate[j] = down(d * up(value[j]) * (phi + g * density));
        }
    }
}
