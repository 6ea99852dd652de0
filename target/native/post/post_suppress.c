/* Non-maximum suppression over the candidates of several levels. */
#include "ergo_internal.h"
#include "ergo_post.h"

#define MOST_LEVELS 8

static int64_t coordinate(int32_t place) {
  return place > ERGO_MOST_PLACE ? ERGO_MOST_PLACE : place < -ERGO_MOST_PLACE ? -ERGO_MOST_PLACE : place;
}

static int64_t area(const int64_t *box) {
  return box[2] > box[0] && box[3] > box[1] ? (box[2] - box[0]) * (box[3] - box[1]) : 0;
}

/* Whether intersection / union > iou. */
static int overlap(const int64_t *a, const int64_t *b, int32_t iou) {
  int64_t both[4] = {a[0] > b[0] ? a[0] : b[0], a[1] > b[1] ? a[1] : b[1], a[2] < b[2] ? a[2] : b[2],
                     a[3] < b[3] ? a[3] : b[3]};
  int64_t common = area(both);
  return common * 65536 > iou * (area(a) + area(b) - common);
}

static int covered(const ergo_found *f, uint32_t held, int32_t class, const int64_t *box, int32_t iou) {
  for (uint32_t i = 0; i < held; i++) {
    if (ergo_i32(f->classes + (int64_t)i * f->class_stride) != class) continue;
    int64_t other[4];
    for (unsigned k = 0; k < 4; k++)
      other[k] = ergo_i32(f->boxes + (int64_t)i * f->box_strides[0] + (int64_t)k * f->box_strides[1]);
    if (overlap(other, box, iou)) return 1;
  }
  return 0;
}

int ergo_post_suppress(const ergo_tensor *t, const int32_t *rows, uint32_t levels, int32_t iou, const ergo_found *f) {
  uint32_t next[MOST_LEVELS], end[MOST_LEVELS], held = 0, first = 0;
  if (levels > MOST_LEVELS) return 1;
  for (uint32_t i = 0; i < levels; i++) {
    int32_t count = ergo_element(t, 0, 0, first, 0);
    if (count < 0 || count >= rows[i]) return 1;
    next[i] = first + 1, end[i] = next[i] + (uint32_t)count, first += (uint32_t)rows[i];
  }
  while (held < f->most) {
    uint32_t best = levels;
    for (uint32_t i = 0; i < levels; i++)
      if (next[i] < end[i] &&
          (best == levels || ergo_element(t, 0, 0, next[i], 0) > ergo_element(t, 0, 0, next[best], 0)))
        best = i;
    if (best == levels) break;
    uint32_t row = next[best]++;
    int32_t class = ergo_element(t, 0, 0, row, 1);
    int64_t box[4];
    for (unsigned k = 0; k < 4; k++) box[k] = coordinate(ergo_element(t, 0, 0, row, 2 + k));
    if (covered(f, held, class, box, iou)) continue;
    for (unsigned k = 0; k < 4; k++)
      ergo_put_i32(f->boxes + (int64_t)held * f->box_strides[0] + (int64_t)k * f->box_strides[1], (int32_t)box[k]);
    ergo_put_i32(f->classes + (int64_t)held * f->class_stride, class);
    ergo_put_i32(f->scores + (int64_t)held++ * f->score_stride, ergo_element(t, 0, 0, row, 0));
  }
  ergo_put_i32(f->count, (int32_t)held);
  for (; held < f->most; held++) {
    for (unsigned k = 0; k < 4; k++)
      ergo_put_i32(f->boxes + (int64_t)held * f->box_strides[0] + (int64_t)k * f->box_strides[1], 0);
    ergo_put_i32(f->scores + (int64_t)held * f->score_stride, 0);
    ergo_put_i32(f->classes + (int64_t)held * f->class_stride, -1);
  }
  return 0;
}
