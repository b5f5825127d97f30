/* A window that moves over an image. Images are [height][width][channels]. */
struct window {
  int32_t in_height, in_width, channels, out_height, out_width;
  int32_t kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x, top, left;
};
