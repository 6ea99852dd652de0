/* A Program's bytes, taken apart and checked whole before anything runs: target/program.py says what they are. */
#include "ergo_internal.h"
#include "sha256.h"

#define HEAD_BYTES 48u
#define VERSION 2u
#define HALT 0x3Fu
#define MOST_MEMORY ((uint64_t)1 << 32)

typedef struct reader {
  const uint8_t *bytes;
  size_t at, size;
  int bad;
} reader;

static uint64_t number(reader *r, unsigned bytes) {
  uint64_t value = 0;
  if (r->bad || r->size - r->at < bytes) return r->bad = 1, 0;
  for (unsigned i = 0; i < bytes; i++) value |= (uint64_t)r->bytes[r->at + i] << 8 * i;
  r->at += bytes;
  return value;
}

static void skip(reader *r, uint64_t bytes) {
  if (r->bad || r->size - r->at < bytes)
    r->bad = 1;
  else
    r->at += (size_t)bytes;
}

static void text(reader *r) { skip(r, number(r, 4)); }

static ergo_status read_port(reader *r, ergo_port *port) {
  port->name_bytes = (uint32_t)number(r, 4);
  port->name = (const char *)r->bytes + r->at;
  skip(r, port->name_bytes);
  size_t used = 0;
  if (r->bad || ergo_parse_operand(r->bytes + r->at, r->size - r->at, &port->operand, &used)) return ERGO_MALFORMED;
  r->at += used;
  uint64_t streamed = number(r, 1), bytes = ergo_elements(&port->operand) * ergo_itemsize(port->operand.dtype);
  if (r->bad || streamed > 1 || bytes > UINT32_MAX || port->operand.codec != ERGO_RAW) return ERGO_MALFORMED;
  port->streamed = (uint8_t)streamed, port->bytes = (uint32_t)bytes;
  return ERGO_OK;
}

static int inside(const ergo_operand *t, uint64_t memory_bytes) {
  int64_t low, high;
  return ergo_extent(t, &low, &high) && low >= 0 && (uint64_t)high <= memory_bytes;
}

static ergo_status ports(ergo_net *net, reader *r, uint32_t *count, size_t *at, int inputs) {
  *count = (uint32_t)number(r, 4);
  *at = r->at;
  for (uint32_t i = 0; i < *count; i++) {
    ergo_port port, other;
    ergo_status status = read_port(r, &port);
    if (status) return status;
    if (port.streamed && (!inputs || port.operand.addr || !ergo_is_contiguous(&port.operand))) return ERGO_PRECONDITION;
    if (!port.streamed && !inside(&port.operand, net->memory_bytes)) return ERGO_OUTSIDE_MEMORY;
    reader again = {r->bytes, *at, r->size, 0};
    for (uint32_t k = 0; k < i; k++)
      if (read_port(&again, &other) ||
          (other.name_bytes == port.name_bytes && !memcmp(other.name, port.name, port.name_bytes)))
        return ERGO_PRECONDITION;
  }
  return ERGO_OK;
}

static ergo_status sections(ergo_net *net, reader *r) {
  net->sections = (uint32_t)number(r, 4);
  net->data_at = r->at;
  for (uint32_t i = 0; i < net->sections; i++) {
    uint64_t addr = number(r, 8), size = number(r, 8);
    skip(r, size);
    if (r->bad) return ERGO_MALFORMED;
    if (addr > net->memory_bytes || size > net->memory_bytes - addr) return ERGO_OUTSIDE_MEMORY;
    reader again = {r->bytes, net->data_at, r->size, 0};
    for (uint32_t k = 0; k < i; k++) {
      uint64_t other = number(&again, 8), other_size = number(&again, 8);
      if (size && other_size && addr < other + other_size && other < addr + size) return ERGO_PRECONDITION;
      skip(&again, other_size);
    }
  }
  return r->bad ? ERGO_MALFORMED : ERGO_OK;
}

static ergo_status received(const ergo_net *net, const ergo_ins *ins) {
  ergo_port port;
  if (ins->v[0] >= net->inputs || ergo_input(net, (uint32_t)ins->v[0], &port) || !port.streamed)
    return ERGO_NO_SUCH_PORT;
  uint64_t end = (uint64_t)ins->v[1] + ergo_itemsize(ins->t[0].dtype);
  for (unsigned i = 0; i < ins->t[0].rank; i++) {
    if (ins->v[2 + i] > INT32_MAX) return ERGO_PRECONDITION;
    uint64_t steps = ins->t[0].shape[i] - 1u;
    if (ins->v[2 + i] && steps > UINT32_MAX / (uint64_t)ins->v[2 + i]) return ERGO_NO_SUCH_PORT;
    end += steps * (uint64_t)ins->v[2 + i];
  }
  return end <= port.bytes && ins->t[0].dtype == port.operand.dtype ? ERGO_OK : ERGO_NO_SUCH_PORT;
}

static int is_out(const ergo_ins *ins, unsigned i) {
  return strchr(ins->op->fields, 'L') ? i >= ins->lists[0] : (!ins->table || i != ins->table) && ins->op->spec[i].out;
}

/* Bounds, preconditions, waits; the workspace; the lowest address that is written. */
static ergo_status instructions(ergo_net *net, uint64_t *lowest) {
  uint32_t issued[6] = {0};
  size_t at = net->code_at;
  for (uint32_t index = 0; index < net->instructions; index++) {
    ergo_ins ins;
    net->failed = index;
    ergo_status status = ergo_parse(net->bytes + at, net->size - at, &ins);
    if (status) return status;
    for (unsigned i = 0; i < ins.operands; i++) {
      int64_t low, high;
      if (!inside(&ins.t[i], net->memory_bytes)) return ERGO_OUTSIDE_MEMORY;
      ergo_extent(&ins.t[i], &low, &high);
      if (is_out(&ins, i) && (uint64_t)low < *lowest) *lowest = (uint64_t)low;
    }
    if ((status = ergo_check(&ins)) || (ins.op->opcode == 0x24 && (status = received(net, &ins)))) return status;
    for (unsigned engine = 0; engine < 6; engine++)
      if (ins.waits[engine] > issued[engine]) return ERGO_PRECONDITION;
    if (ins.node >= (net->nodes ? net->nodes : 1) || (ins.op->opcode == HALT) != (index + 1 == net->instructions))
      return ERGO_PRECONDITION;
    issued[ins.op->engine]++;
    size_t work = ins.op->workspace ? ins.op->workspace(&ins) : 0;
    if (work > net->workspace_bytes) net->workspace_bytes = work;
    at += ins.length;
  }
  if (at != net->size || !net->instructions) return ERGO_MALFORMED;
  return ERGO_OK;
}

/* Whether everything below `limit` that is read lies in one section each: then these addresses need no arena. */
static int only_constants(const ergo_net *net, uint64_t limit) {
  size_t at = net->code_at;
  const uint8_t *place;
  int64_t low, high;
  for (uint32_t index = 0; index < net->instructions; index++) {
    ergo_ins ins;
    if (ergo_parse(net->bytes + at, net->size - at, &ins)) return 0;
    for (unsigned i = 0; i < ins.operands; i++)
      if (ergo_extent(&ins.t[i], &low, &high) && (uint64_t)low < limit &&
          ((uint64_t)high > limit || !ergo_find_section(net, (uint64_t)low, (uint64_t)high, &place)))
        return 0;
    at += ins.length;
  }
  for (uint32_t i = 0; i < net->outputs; i++) {
    ergo_port port;
    if (ergo_output(net, i, &port) || !ergo_extent(&port.operand, &low, &high) || (uint64_t)low < limit) return 0;
  }
  return 1;
}

static ergo_status payload(ergo_net *net, reader *r) {
  text(r);
  net->memory_bytes = number(r, 8);
  if (r->bad || !net->memory_bytes || net->memory_bytes > MOST_MEMORY) return ERGO_MALFORMED;
  text(r);
  net->nodes = (uint32_t)number(r, 4);
  for (uint64_t i = 0; i < 3 * (uint64_t)net->nodes && !r->bad; i++) text(r);
  uint32_t buffers = (uint32_t)number(r, 4);
  for (uint32_t i = 0; i < buffers && !r->bad; i++) text(r), skip(r, 33);
  ergo_status status = ports(net, r, &net->inputs, &net->inputs_at, 1);
  if (!status) status = ports(net, r, &net->outputs, &net->outputs_at, 0);
  if (!status) status = sections(net, r);
  net->instructions = (uint32_t)number(r, 4);
  net->code_at = r->at;
  return status ? status : r->bad ? ERGO_MALFORMED : ERGO_OK;
}

ergo_status ergo_load(ergo_net *net, const void *program, size_t size) {
  if (!net || !program) return ERGO_NULL;
  memset(net, 0, sizeof *net);
  const uint8_t *bytes = program;
  uint8_t digest[32];
  if (size < 4 || memcmp(bytes, "ERGO", 4)) return ERGO_NOT_A_PROGRAM;
  if (size < HEAD_BYTES) return ERGO_TRUNCATED;
  if (bytes[4] != VERSION || bytes[5]) return ERGO_WRONG_VERSION;
  reader head = {bytes, 40, size, 0};
  if (number(&head, 8) != size - HEAD_BYTES) return ERGO_TRUNCATED;
  ergo_sha256 sha;
  ergo_sha256_start(&sha);
  ergo_sha256_add(&sha, bytes, 8);
  ergo_sha256_add(&sha, bytes + 40, size - 40);
  ergo_sha256_end(&sha, digest);
  if (memcmp(digest, bytes + 8, 32)) return ERGO_CHECKSUM;

  net->bytes = bytes, net->size = size;
  reader r = {bytes, HEAD_BYTES, size, 0};
  ergo_status status = payload(net, &r);
  uint64_t lowest = net->memory_bytes;
  if (!status) status = instructions(net, &lowest);
  if (status) return status;
  for (uint32_t i = 0; i < net->inputs; i++) {
    ergo_port port;
    int64_t low, high;
    if (!ergo_input(net, i, &port) && !port.streamed && ergo_extent(&port.operand, &low, &high) &&
        (uint64_t)low < lowest)
      lowest = (uint64_t)low;
  }
  if (lowest < MOST_MEMORY && only_constants(net, lowest)) net->constant_bytes = (uint32_t)lowest;
  return ERGO_OK;
}

static ergo_status nth(const ergo_net *net, size_t at, uint32_t count, uint32_t index, ergo_port *port) {
  if (!net || !port) return ERGO_NULL;
  if (index >= count) return ERGO_NO_SUCH_PORT;
  reader r = {net->bytes, at, net->size, 0};
  ergo_status status = ERGO_OK;
  for (uint32_t i = 0; i <= index && !status; i++) status = read_port(&r, port);
  return status;
}

ergo_status ergo_input(const ergo_net *net, uint32_t index, ergo_port *port) {
  return nth(net, net ? net->inputs_at : 0, net ? net->inputs : 0, index, port);
}

ergo_status ergo_output(const ergo_net *net, uint32_t index, ergo_port *port) {
  return nth(net, net ? net->outputs_at : 0, net ? net->outputs : 0, index, port);
}
