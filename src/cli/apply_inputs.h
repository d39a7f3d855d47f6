/* apply_inputs.h - what `mneme apply` feeds: the tensors of a file that are a mixer's or a block's x, or a model's ports, by name. */
#ifndef MN_APPLY_INPUTS_H
#define MN_APPLY_INPUTS_H

#include "format/safetensors.h"
#include "model/unit.h"

typedef struct mn_apply_inputs {
  const mn_unit *unit;
  const mn_st *file;
  mn_sizes sizes; /* of the free axes, as the file's tensors have them; 0: no tensor has it */
  int n;
  const mn_port *port[MN_IO_MAX]; /* those that the file has */
} mn_apply_inputs;

/* Which inputs of the unit the file has, and their sizes. later: the stream has begun elsewhere, and what it keeps may be left out. A
 * missing tensor, and a shape that does not fit the port, is a message that names both. The file must outlive what is found. */
mn_status mn_apply_inputs_find(const mn_unit *unit, const mn_st *file, bool later, mn_apply_inputs *out);
/* All inputs that the unit can have, closed by {0}. */
const mn_port *mn_apply_ports(const mn_unit *unit);
/* Those found, as leaves of the scope's graph. */
void mn_apply_inputs_leaves(mn_scope *s, const mn_apply_inputs *inputs, mn_model_io *io);
/* What a model's integers mean (ids of its vocabulary, lengths within a row) against the values, n elements. */
mn_status mn_apply_inputs_check(const mn_apply_inputs *inputs, const char *name, const void *values, int64_t n);

#endif
