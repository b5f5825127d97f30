/* Both operands times 2^20 on a common scale, added, brought to the output's scale. */
struct add {
  struct pairs pairs;
  int32_t zero_a, multiplier_a, shift_a, zero_b, multiplier_b, shift_b, multiplier, shift, zero, low, high;
};

static void add(const struct add *n, const int8_t *a, const int8_t *b, int8_t *y) {
  const struct pairs *p = &n->pairs;
  for (int32_t row = 0; row < p->size[0] * p->size[1] * p->size[2]; row++) {
    int32_t ia, ib;
    row_of(p, row, &ia, &ib);
    for (int32_t i = 0; i < p->size[3]; i++, ia += p->step_a[3], ib += p->step_b[3]) {
      const int32_t first = rescale((a[ia] - n->zero_a) * (1 << 20), n->multiplier_a, n->shift_a);
      const int32_t second = rescale((b[ib] - n->zero_b) * (1 << 20), n->multiplier_b, n->shift_b);
      *y++ = clamp(rescale(first + second, n->multiplier, n->shift) + n->zero, n->low, n->high);
    }
  }
}
