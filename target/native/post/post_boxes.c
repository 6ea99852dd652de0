/* Detection heads: which boxes and classes score enough, and where those boxes are. */
#include "ergo_internal.h"
#include "ergo_post.h"

#define ROW_BYTES (4 * ERGO_CANDIDATE)

typedef struct heap {
  uint8_t *rows; /* score and number (cell, anchor, class) of each; the worst stands first */
  uint32_t held, room;
} heap;

static int worse(int32_t score, uint32_t number, const uint8_t *row) {
  int32_t other = ergo_i32(row);
  return score < other || (score == other && number > (uint32_t)ergo_i32(row + 4));
}

static void put(uint8_t *row, int32_t score, uint32_t number) {
  ergo_put_i32(row, score), ergo_put_i32(row + 4, (int32_t)number);
}

/* A new value at place `at`, whose children may be worse. */
static void sink(uint8_t *rows, uint32_t held, uint32_t at, int32_t score, uint32_t number) {
  for (;;) {
    uint32_t child = 2 * at + 1;
    if (child >= held) break;
    const uint8_t *row = rows + (size_t)child * ROW_BYTES;
    if (child + 1 < held && worse(ergo_i32(row + ROW_BYTES), (uint32_t)ergo_i32(row + ROW_BYTES + 4), row))
      child++, row += ROW_BYTES;
    if (worse(score, number, row)) break;
    put(rows + (size_t)at * ROW_BYTES, ergo_i32(row), (uint32_t)ergo_i32(row + 4));
    at = child;
  }
  put(rows + (size_t)at * ROW_BYTES, score, number);
}

static void add(heap *h, int32_t score, uint32_t number) {
  if (h->held == h->room) {
    if (!worse(score, number, h->rows)) sink(h->rows, h->held, 0, score, number);
    return;
  }
  uint32_t at = h->held++;
  while (at > 0) {
    uint8_t *parent = h->rows + (size_t)((at - 1) / 2) * ROW_BYTES;
    if (!worse(score, number, parent)) break;
    put(h->rows + (size_t)at * ROW_BYTES, ergo_i32(parent), (uint32_t)ergo_i32(parent + 4));
    at = (at - 1) / 2;
  }
  put(h->rows + (size_t)at * ROW_BYTES, score, number);
}

/* Best first. */
static void sort(heap *h) {
  for (uint32_t left = h->held; left > 1; left--) {
    uint8_t *last = h->rows + (size_t)(left - 1) * ROW_BYTES;
    int32_t score = ergo_i32(last);
    uint32_t number = (uint32_t)ergo_i32(last + 4);
    put(last, ergo_i32(h->rows), (uint32_t)ergo_i32(h->rows + 4));
    sink(h->rows, left - 1, 0, score, number);
  }
}

/* A real value as a factor of a score, 0 to 1. */
static int32_t factor(int32_t real, ergo_activation activation) {
  if (activation == ERGO_SIGMOID) return ergo_sigmoid(real);
  return real <= 0 ? 0 : real >= 1 << 16 ? ERGO_ONE : real << 14;
}

static void softmax_scores(const ergo_level *l, uint32_t h, uint32_t w, uint32_t a, uint32_t first, heap *kept) {
  uint32_t classes = l->classes.x.shape[3];
  int32_t most = INT32_MIN;
  int64_t sum = 0;
  for (uint32_t c = 0; c < classes; c++) {
    int32_t value = ergo_real(&l->classes, h, w, a, c);
    if (value > most) most = value;
  }
  for (uint32_t c = 0; c < classes; c++) sum += ergo_exp_below(ergo_real(&l->classes, h, w, a, c) - most);
  for (uint32_t c = l->first_class; c < classes; c++) {
    int64_t e = ergo_exp_below(ergo_real(&l->classes, h, w, a, c) - most);
    int32_t score = (int32_t)((e << 30) / sum);
    if (score > l->threshold) add(kept, score, first + c);
  }
}

static void scores(const ergo_level *l, uint32_t h, uint32_t w, uint32_t a, uint32_t first, heap *kept) {
  int64_t object = ERGO_ONE;
  if (l->objectness.x.data) {
    int32_t real = ergo_real(&l->objectness, h, w, a, 0);
    if (real <= l->floor) return;
    object = factor(real, l->activation);
  }
  for (uint32_t c = l->first_class; c < l->classes.x.shape[3]; c++) {
    int32_t real = ergo_real(&l->classes, h, w, a, c);
    if (real <= l->floor) continue;
    int32_t score = (int32_t)(object * factor(real, l->activation) >> 30);
    if (score > l->threshold) add(kept, score, first + c);
  }
}

static int32_t limited(int64_t place) {
  return (int32_t)(place > ERGO_MOST_PLACE ? ERGO_MOST_PLACE : place < -ERGO_MOST_PLACE ? -ERGO_MOST_PLACE : place);
}

/* An axis of a box from its centre and size. */
static void around(int64_t centre, int64_t size, int32_t *low, int32_t *high) {
  centre = limited(centre), size = limited(size);
  *low = limited(centre - (size >> 1)), *high = limited(centre - (size >> 1) + size);
}

/* A distance of YOLOv8: the mean of its bins under softmax, or the value itself. */
static int64_t distance(const ergo_values *boxes, uint32_t h, uint32_t w, uint32_t a, uint32_t side) {
  uint32_t bins = boxes->x.shape[3] / 4, first = side * bins;
  if (bins == 1) return ergo_real(boxes, h, w, a, side);
  int32_t most = INT32_MIN;
  for (uint32_t i = 0; i < bins; i++) {
    int32_t value = ergo_real(boxes, h, w, a, first + i);
    if (value > most) most = value;
  }
  int64_t sum = 0, weighted = 0;
  for (uint32_t i = 0; i < bins; i++) {
    int64_t e = ergo_exp_below(ergo_real(boxes, h, w, a, first + i) - most);
    sum += e, weighted += e * i;
  }
  return (weighted << 16) / sum;
}

/* box[0..3]: x1, y1, x2, y2. */
static void box_at(const ergo_level *l, uint32_t h, uint32_t w, uint32_t a, int32_t *box) {
  for (uint32_t axis = 0; axis < 2; axis++) { /* x, then y */
    int64_t cell = axis ? h : w, step = axis ? l->step_y : l->step_x;
    uint32_t at = l->head == ERGO_SSD && l->rows_first ? 1 - axis : axis;
    int64_t offset = l->head == ERGO_YOLOV8 ? 0 : ergo_real(&l->boxes, h, w, a, at);
    int32_t size = l->head == ERGO_YOLOV8 ? 0 : ergo_real(&l->boxes, h, w, a, at + 2);
    int32_t *low = &box[axis], *high = &box[axis + 2];
    if (l->head == ERGO_YOLOX) {
      around(ergo_floor_shift((offset + cell * 65536) * step, 16), (int64_t)ergo_exp(size) * step >> 16, low, high);
    } else if (l->head == ERGO_YOLOV5) {
      int64_t twice = 2 * (int64_t)factor((int32_t)offset, l->activation), across = 2 * (int64_t)factor(size, l->activation);
      int64_t anchor = ergo_element(&l->anchors, 0, 0, a, axis);
      around(ergo_floor_shift((twice - ERGO_ONE / 2 + cell * ERGO_ONE) * step, 30),
             ergo_floor_shift((across * across >> 30) * limited(anchor), 30), low, high);
    } else if (l->head == ERGO_YOLOV8) {
      int64_t centre = cell * 65536 + 32768;
      *low = limited(ergo_floor_shift((centre - distance(&l->boxes, h, w, a, axis)) * step, 16));
      *high = limited(ergo_floor_shift((centre + distance(&l->boxes, h, w, a, axis + 2)) * step, 16));
    } else {
      int64_t middle = limited(ergo_element(&l->anchors, 0, 0, w * l->boxes.x.shape[2] + a, axis));
      int64_t length = limited(ergo_element(&l->anchors, 0, 0, w * l->boxes.x.shape[2] + a, axis + 2));
      int64_t moved = ergo_floor_shift(offset * l->centre, 16), grown = ergo_floor_shift((int64_t)size * l->size, 16);
      moved = moved > ERGO_MOST_REAL ? ERGO_MOST_REAL : moved < -ERGO_MOST_REAL ? -ERGO_MOST_REAL : moved;
      grown = grown > ERGO_MOST_REAL ? ERGO_MOST_REAL : grown < -ERGO_MOST_REAL ? -ERGO_MOST_REAL : grown;
      around(middle + ergo_floor_shift(moved * length, 16), ergo_floor_shift(ergo_exp((int32_t)grown) * length, 16), low,
             high);
    }
  }
}

void ergo_post_boxes(const ergo_level *l, uint32_t room, uint8_t *candidates) {
  const uint32_t *n = l->classes.x.shape;
  heap kept = {candidates + ROW_BYTES, 0, room};
  memset(candidates, 0, (size_t)(1 + room) * ROW_BYTES);
  for (uint32_t h = 0; h < n[0]; h++)
    for (uint32_t w = 0; w < n[1]; w++)
      for (uint32_t a = 0; a < n[2]; a++) {
        uint32_t first = ((h * n[1] + w) * n[2] + a) * n[3];
        if (l->activation == ERGO_SOFTMAX)
          softmax_scores(l, h, w, a, first, &kept);
        else
          scores(l, h, w, a, first, &kept);
      }
  sort(&kept);
  ergo_put_i32(candidates, (int32_t)kept.held);
  for (uint32_t i = 0; i < kept.held; i++) {
    uint8_t *row = kept.rows + (size_t)i * ROW_BYTES;
    uint32_t number = (uint32_t)ergo_i32(row + 4), cell = number / n[3];
    int32_t box[4];
    box_at(l, cell / n[2] / n[1], cell / n[2] % n[1], cell % n[2], box);
    ergo_put_i32(row + 4, (int32_t)(number % n[3] - l->first_class));
    for (unsigned k = 0; k < 4; k++) ergo_put_i32(row + 8 + 4 * k, box[k]);
  }
}
