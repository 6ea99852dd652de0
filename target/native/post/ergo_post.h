/* Post-processing on the chip's CPU: what stands behind a network's stored integers. Integer arithmetic only, so that
 * every platform gives the same bits; nothing is allocated; every output has a fixed size, and a count where fewer are
 * found.
 *
 * Real values come from stored ones by a multiplier, a shift and a zero point a channel (`ergo_real`), in units of
 * 2**-16 where nothing else is said: the multiplier then carries scale * 65536. Scores and probabilities are in units of
 * 2**-30, coordinates in 1/64 of a pixel. */
#ifndef ERGO_POST_H
#define ERGO_POST_H

#include "ergo.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ERGO_POST_RANK 4
#define ERGO_ONE (1 << 30)      /* a score of 1 */
#define ERGO_MOST_REAL (1 << 30) /* real values are limited to +- this */
#define ERGO_MOST_PLACE (1 << 21) /* coordinates to +- this: 32,768 pixels */
#define ERGO_CANDIDATE 6        /* int32 a row of candidates: score, class, x1, y1, x2, y2 */

/* A tensor of four axes, leading ones perhaps of length 1. strides: bytes. */
typedef struct ergo_tensor {
  const uint8_t *data;
  uint32_t shape[ERGO_POST_RANK];
  int32_t strides[ERGO_POST_RANK];
  uint8_t dtype; /* ergo_dtype */
} ergo_tensor;

/* Stored values and what they stand for. scales: int32[..., F, 3], multiplier, shift and zero point of each of the last
 * axis' F channels, perhaps of the axis before it too. */
typedef struct ergo_values {
  ergo_tensor x, scales;
} ergo_values;

int32_t ergo_element(const ergo_tensor *t, uint32_t a, uint32_t b, uint32_t c, uint32_t d);
/* floor((stored - zero point) * multiplier / 2**shift + 1/2), limited. */
int32_t ergo_real(const ergo_values *s, uint32_t a, uint32_t b, uint32_t c, uint32_t d);
/* Whether every multiplier is in 0 .. 2**24 - 1 and every shift in 0 .. 62. */
int ergo_scales_hold(const ergo_tensor *scales);

/* e**x of x in 2**-16; the result too, at most 2**31 - 1. By tables of 2**(i/32) and 2**(i/1024), straight between. */
int32_t ergo_exp(int32_t x);
/* The same for x <= 0, in 2**-30. */
int32_t ergo_exp_below(int32_t x);
/* 1 / (1 + e**-x), in 2**-30. */
int32_t ergo_sigmoid(int32_t x);

typedef enum ergo_activation { ERGO_AS_IS = 0, ERGO_SIGMOID = 1, ERGO_SOFTMAX = 2 } ergo_activation;

/* Over the last axis of [A, B, C, K]; out: int32 of the same shape. */
void ergo_post_softmax(const ergo_values *x, uint8_t *out, const int32_t *out_strides);
void ergo_post_sigmoid(const ergo_values *x, uint8_t *out, const int32_t *out_strides);
/* The k largest of [1, 1, 1, K], the largest first, of equal ones the lower index: indices and real values. */
void ergo_post_topk(const ergo_values *x, uint32_t k, uint8_t *indices, int32_t index_stride, uint8_t *values,
                    int32_t value_stride);

typedef enum ergo_head { ERGO_YOLOX = 0, ERGO_YOLOV5 = 1, ERGO_YOLOV8 = 2, ERGO_SSD = 3 } ergo_head;

/* One level of a detection head: boxes [H, W, A, B], perhaps objectness [H, W, A, 1], classes [H, W, A, C]. */
typedef struct ergo_level {
  ergo_head head;
  ergo_activation activation; /* of objectness and classes (YOLOv5: of boxes too); softmax: of SSD's classes only */
  ergo_values boxes, objectness, classes;
  ergo_tensor anchors;      /* YOLOv5: int32[1, 1, A, 2], width and height; SSD: int32[1, 1, W * A, 4], x, y (of centres), w, h */
  int32_t floor;            /* each factor of a score must exceed this real value (not with softmax) */
  int32_t threshold;        /* and the score this one */
  uint32_t first_class;     /* classes below are no objects (a background) */
  int32_t step_y, step_x;   /* cell to cell, 1/64 pixel */
  int32_t centre, size;     /* SSD: what offsets and logarithms are multiplied by, in 2**-16 */
  int32_t rows_first;       /* SSD: boxes are y, x, h, w */
} ergo_level;

/* The best `room` pairs of a box and a class whose score exceeds the threshold, best first, of equal ones the earlier
 * cell and class. candidates: int32[1 + room, 6]; the first row's first value is their number, unused rows are 0. */
void ergo_post_boxes(const ergo_level *level, uint32_t room, uint8_t *candidates);

/* Non-maximum suppression within each class over the candidates of several levels (rows[i]: of each, its first row
 * included). The best `most` that no better one of their class overlaps by more than iou (2**-16) of the union.
 * Unused: class -1, else 0. Nonzero where a count is none. */
typedef struct ergo_found {
  uint8_t *boxes, *scores, *classes, *count; /* int32[most, 4], [most], [most], [1] */
  int32_t box_strides[2], score_stride, class_stride;
  uint32_t most;
} ergo_found;
int ergo_post_suppress(const ergo_tensor *candidates, const int32_t *rows, uint32_t levels, int32_t iou,
                       const ergo_found *found);

/* Of each channel of heat maps [1, H, W, K] the first largest value's place, moved by a quarter of a cell towards the
 * larger neighbour: points int32[K, 2] (x, y), and the real value there. */
void ergo_post_keypoints(const ergo_values *x, int32_t step_y, int32_t step_x, uint8_t *points,
                         const int32_t *point_strides, uint8_t *values, int32_t value_stride);
/* uint8[H, W]: the first class with the largest real value, of [1, H, W, C], C at most 256. */
void ergo_post_mask(const ergo_values *x, uint8_t *out, const int32_t *out_strides);
/* Greedy decoding of [1, 1, T, C]: the best class of each step, repeats and blanks left out. out: int32[T], unused -1;
 * returns how many. */
uint32_t ergo_post_ctc(const ergo_values *x, uint32_t blank, uint8_t *out, int32_t out_stride);
/* Mean of the squared differences of two tensors' real values, in 2**-16, at most 2**31 - 1. */
int32_t ergo_post_anomaly(const ergo_values *a, const ergo_values *b);

#ifdef __cplusplus
}
#endif
#endif
