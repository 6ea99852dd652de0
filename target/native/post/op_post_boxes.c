/* CPU_CALL: boxes of a level of a detection head, suppression over all levels. */
#include "op_post.h"

#define MOST_STEP (1 << 20)
#define MOST_CELLS 4096u
#define MOST_BINS 256u
#define MOST_LEVELS 8

enum { HEAD, ACTIVATION, FLOOR, THRESHOLD, FIRST_CLASS, STEP_Y, STEP_X, CENTRE, SIZE, ROWS_FIRST, PARAMS };

static int has_objectness(int64_t head) { return head == ERGO_YOLOX || head == ERGO_YOLOV5; }

static int has_anchors(int64_t head) { return head == ERGO_YOLOV5 || head == ERGO_SSD; }

static int params_hold(const int64_t *p, uint32_t classes) {
  return p[HEAD] >= ERGO_YOLOX && p[HEAD] <= ERGO_SSD && p[ACTIVATION] >= ERGO_AS_IS &&
         p[ACTIVATION] <= (p[HEAD] == ERGO_SSD ? ERGO_SOFTMAX : ERGO_SIGMOID) && p[FIRST_CLASS] >= 0 &&
         p[FIRST_CLASS] < classes && p[THRESHOLD] >= 0 && p[STEP_Y] >= 0 && p[STEP_Y] <= MOST_STEP && p[STEP_X] >= 0 &&
         p[STEP_X] <= MOST_STEP && p[CENTRE] >= 0 && p[CENTRE] <= MOST_STEP && p[SIZE] >= 0 && p[SIZE] <= MOST_STEP &&
         p[ROWS_FIRST] >= 0 && p[ROWS_FIRST] <= 1;
}

static int grid_fits(const ergo_operand *boxes, const ergo_operand *other) {
  return other->rank == 4 && !memcmp(boxes->shape, other->shape, 3 * sizeof *boxes->shape);
}

static int anchors_fit(int64_t head, const ergo_operand *boxes, const ergo_operand *anchors) {
  if (!ergo_post_is(anchors, ERGO_I32, 2)) return 0;
  return head == ERGO_SSD ? anchors->shape[0] == (uint64_t)boxes->shape[1] * boxes->shape[2] && anchors->shape[1] == 4 &&
                                boxes->shape[0] == 1
                          : anchors->shape[0] == boxes->shape[2] && anchors->shape[1] == 2;
}

static ergo_status boxes_check(const ergo_ins *ins) {
  const int64_t *p = POST_PARAMS(ins);
  unsigned inputs = 4 + 2 * (unsigned)has_objectness(p[HEAD]) + (unsigned)has_anchors(p[HEAD]);
  if (!ergo_post_form(ins, inputs, 1, PARAMS)) return ERGO_PRECONDITION;
  const ergo_operand *boxes = &ins->t[0], *classes = &ins->t[2 + 2 * has_objectness(p[HEAD])], *out = &ins->t[inputs];
  if (boxes->rank != 4 || !grid_fits(boxes, classes) || !ergo_scales_fit(boxes, &ins->t[1]) ||
      !ergo_scales_fit(classes, classes + 1) || !params_hold(p, classes->shape[3]))
    return ERGO_PRECONDITION;
  if (has_objectness(p[HEAD]) && (!grid_fits(boxes, &ins->t[2]) || ins->t[2].shape[3] != 1 ||
                                  !ergo_scales_fit(&ins->t[2], &ins->t[3])))
    return ERGO_PRECONDITION;
  if (has_anchors(p[HEAD]) && !anchors_fit(p[HEAD], boxes, &ins->t[inputs - 1])) return ERGO_PRECONDITION;
  uint32_t values = boxes->shape[3];
  if (p[HEAD] == ERGO_YOLOV8 ? values % 4 || values / 4 > MOST_BINS : values != 4) return ERGO_PRECONDITION;
  if (p[HEAD] != ERGO_SSD && (boxes->shape[0] > MOST_CELLS || boxes->shape[1] > MOST_CELLS)) return ERGO_PRECONDITION;
  if (ergo_elements(classes) > INT32_MAX) return ERGO_PRECONDITION;
  return ergo_post_is(out, ERGO_I32, 2) && out->shape[0] > 1 && out->shape[1] == ERGO_CANDIDATE &&
                 ergo_is_contiguous(out)
             ? ERGO_OK
             : ERGO_PRECONDITION;
}

static ergo_status boxes(ergo_ctx *ctx, const ergo_ins *ins) {
  const int64_t *p = POST_PARAMS(ins);
  unsigned at = 2;
  ergo_level level;
  memset(&level, 0, sizeof level);
  level.head = (ergo_head)p[HEAD], level.activation = (ergo_activation)p[ACTIVATION];
  level.floor = (int32_t)p[FLOOR], level.threshold = (int32_t)p[THRESHOLD];
  level.first_class = (uint32_t)p[FIRST_CLASS];
  level.step_y = (int32_t)p[STEP_Y], level.step_x = (int32_t)p[STEP_X];
  level.centre = (int32_t)p[CENTRE], level.size = (int32_t)p[SIZE], level.rows_first = (int32_t)p[ROWS_FIRST];
  level.boxes = ergo_values_of(ctx, ins, 0);
  if (has_objectness(p[HEAD])) level.objectness = ergo_values_of(ctx, ins, at), at += 2;
  level.classes = ergo_values_of(ctx, ins, at), at += 2;
  if (has_anchors(p[HEAD])) level.anchors = ergo_tensor_of(ctx, &ins->t[at++]);
  if (!ctx->status) ergo_post_boxes(&level, ins->t[at].shape[0] - 1, ergo_at(ctx, &ins->t[at]));
  return ctx->status;
}

static ergo_status suppress_check(const ergo_ins *ins) {
  const int64_t *p = POST_PARAMS(ins); /* iou, then the rows of each level */
  const ergo_operand *t = ins->t;
  if (ins->v[1] < 2 || ins->v[1] > 1 + MOST_LEVELS || !ergo_post_form(ins, 1, 4, (unsigned)ins->v[1]))
    return ERGO_PRECONDITION;
  uint64_t rows = 0;
  for (int64_t i = 1; i < ins->v[1]; i++) {
    if (p[i] < 1) return ERGO_PRECONDITION;
    rows += (uint64_t)p[i];
  }
  uint32_t most = t[2].shape[0];
  return p[0] >= 0 && p[0] <= 65536 && ergo_post_is(&t[0], ERGO_I32, 2) && t[0].shape[0] == rows &&
                 t[0].shape[1] == ERGO_CANDIDATE && ergo_post_is(&t[1], ERGO_I32, 2) && t[1].shape[0] == most &&
                 t[1].shape[1] == 4 && ergo_post_is(&t[2], ERGO_I32, 1) && ergo_post_is(&t[3], ERGO_I32, 1) &&
                 t[3].shape[0] == most && ergo_post_is(&t[4], ERGO_I32, 1) && t[4].shape[0] == 1
             ? ERGO_OK
             : ERGO_PRECONDITION;
}

static ergo_status suppress(ergo_ctx *ctx, const ergo_ins *ins) {
  const int64_t *p = POST_PARAMS(ins);
  const ergo_operand *t = ins->t;
  int32_t rows[MOST_LEVELS];
  uint32_t levels = (uint32_t)ins->v[1] - 1;
  for (uint32_t i = 0; i < levels; i++) rows[i] = (int32_t)p[1 + i];
  ergo_tensor candidates = ergo_tensor_of(ctx, &t[0]);
  ergo_found found = {ergo_at(ctx, &t[1]),
                      ergo_at(ctx, &t[2]),
                      ergo_at(ctx, &t[3]),
                      ergo_at(ctx, &t[4]),
                      {t[1].strides[0], t[1].strides[1]},
                      t[2].strides[0],
                      t[3].strides[0],
                      t[2].shape[0]};
  return ergo_post_suppress(&candidates, rows, levels, (int32_t)p[0], &found) ? ERGO_BAD_CONSTANT : ERGO_OK;
}

const ergo_cpu_function ergo_cpu_boxes = {5, boxes_check, boxes};
const ergo_cpu_function ergo_cpu_suppress = {6, suppress_check, suppress};
