/* Each pixel lies between four: the rows and columns before and behind it, and the share of the latter in 1/1024. */
struct side {
  const int32_t *before, *behind, *share;
};

struct resize_bilinear {
  int32_t in_width, channels, out_height, out_width;
  struct side rows, columns;
};

static void resize_bilinear(const struct resize_bilinear *r, const int8_t *x, int8_t *y) {
  for (int32_t oy = 0; oy < r->out_height; oy++) {
    const int8_t *above = x + r->rows.before[oy] * r->in_width * r->channels;
    const int8_t *below = x + r->rows.behind[oy] * r->in_width * r->channels;
    const int32_t down = r->rows.share[oy];
    for (int32_t ox = 0; ox < r->out_width; ox++) {
      const int32_t left = r->columns.before[ox] * r->channels, right = r->columns.behind[ox] * r->channels;
      const int32_t across = r->columns.share[ox];
      for (int32_t i = 0; i < r->channels; i++) {
        const int32_t first = above[left + i] * (1024 - down) + below[left + i] * down;
        const int32_t second = above[right + i] * (1024 - down) + below[right + i] * down;
        *y++ = clamp(divide_by_power(first * (1024 - across) + second * across, 20), -128, 127);
      }
    }
  }
}
