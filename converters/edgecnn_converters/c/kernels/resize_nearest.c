/* Each pixel is a copy of one: of which row and column. */
struct resize_nearest {
  int32_t in_width, channels, out_height, out_width;
  const int32_t *rows, *columns;
};

static void resize_nearest(const struct resize_nearest *r, const int8_t *x, int8_t *y) {
  for (int32_t oy = 0; oy < r->out_height; oy++) {
    for (int32_t ox = 0; ox < r->out_width; ox++) {
      const int8_t *pixel = x + (r->rows[oy] * r->in_width + r->columns[ox]) * r->channels;
      for (int32_t channel = 0; channel < r->channels; channel++) *y++ = pixel[channel];
    }
  }
}
