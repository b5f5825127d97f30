struct mul {
  struct pairs pairs;
  int32_t zero_a, zero_b, multiplier, shift, zero, low, high;
};

static void mul(const struct mul *n, const int8_t *a, const int8_t *b, int8_t *y) {
  const struct pairs *p = &n->pairs;
  for (int32_t row = 0; row < p->size[0] * p->size[1] * p->size[2]; row++) {
    int32_t ia, ib;
    row_of(p, row, &ia, &ib);
    for (int32_t i = 0; i < p->size[3]; i++, ia += p->step_a[3], ib += p->step_b[3]) {
      const int32_t product = (a[ia] - n->zero_a) * (b[ib] - n->zero_b);
      *y++ = clamp(rescale(product, n->multiplier, n->shift) + n->zero, n->low, n->high);
    }
  }
}
