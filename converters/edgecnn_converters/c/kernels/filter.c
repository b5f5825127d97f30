#ifdef __ARM_FEATURE_MVE
#include <arm_mve.h>
#endif

/* The sums of products of x with one to four filters, which lie one after another. */
static void dot(const int8_t *x, const int8_t *filters, int32_t length, int32_t count, int32_t *sums) {
  if (count == 4) {
    const int8_t *f0 = filters, *f1 = f0 + length, *f2 = f1 + length, *f3 = f2 + length;
    int32_t s0 = 0, s1 = 0, s2 = 0, s3 = 0;
#ifdef __ARM_FEATURE_MVE /* Helium: 16 products at a time */
    for (int32_t i = 0; i < length; i += 16) {
      const mve_pred16_t inside = vctp8q((uint32_t)(length - i));
      const int8x16_t v = vldrbq_z_s8(x + i, inside);
      s0 = vmladavaq_s8(s0, v, vldrbq_z_s8(f0 + i, inside));
      s1 = vmladavaq_s8(s1, v, vldrbq_z_s8(f1 + i, inside));
      s2 = vmladavaq_s8(s2, v, vldrbq_z_s8(f2 + i, inside));
      s3 = vmladavaq_s8(s3, v, vldrbq_z_s8(f3 + i, inside));
    }
#else
    for (int32_t i = 0; i < length; i++) {
      const int32_t v = x[i];
      s0 += v * f0[i];
      s1 += v * f1[i];
      s2 += v * f2[i];
      s3 += v * f3[i];
    }
#endif
    sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
    return;
  }
  for (int32_t k = 0; k < count; k++) {
    int32_t sum = 0;
    for (int32_t i = 0; i < length; i++) sum += x[i] * filters[k * length + i];
    sums[k] = sum;
  }
}

static inline int32_t rescale_once(int32_t x, int32_t multiplier, int32_t shift) { /* in one rounding, halves up */
  const int32_t total = 31 - shift;
  return (int32_t)(((int64_t)x * multiplier + ((int64_t)1 << (total - 1))) >> total);
}

/* Channels `first` to `first + count - 1` of what the filters make of one patch. A convolution rounds twice, a fully
   connected layer once. */
static void filter(const int8_t *patch, const int8_t *filters, int32_t length, const struct outputs *o, int32_t first,
                   int32_t count, int once, int8_t *y) {
  const int32_t *bias = o->bias + first, *multiplier = o->multiplier + first;
  const int8_t *shift = o->shift + first;
  const int32_t zero = o->zero, low = o->low, high = o->high;
  filters += first * length;
  for (int32_t done = 0; done < count; done += 4) {
    const int32_t now = count - done < 4 ? count - done : 4;
    int32_t sums[4];
    dot(patch, filters + done * length, length, now, sums);
    for (int32_t i = 0; i < now; i++) {
      const int32_t k = done + i, sum = sums[i] + bias[k];
      const int32_t scaled = once ? rescale_once(sum, multiplier[k], shift[k]) : rescale(sum, multiplier[k], shift[k]);
      y[k] = clamp(scaled + zero, low, high);
    }
  }
}
