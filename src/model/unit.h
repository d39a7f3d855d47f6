/* unit.h - what `mneme apply` and `mneme inspect` look at: one mixer, one block, or a whole model, named by a recipe:
 *     {d_model: 64, mixer: {type: ...}}    {d_model: 64, block: {mixer: ..., channel: ...}}    {model: {...}} */
#ifndef MN_UNIT_H
#define MN_UNIT_H

#include "model/model.h"

typedef enum mn_unit_kind { MN_UNIT_MIXER, MN_UNIT_BLOCK, MN_UNIT_MODEL } mn_unit_kind;
typedef struct mn_unit {
  mn_unit_kind kind;
  int64_t d_model;
  mn_mixer mixer;
  mn_model *model; /* a block is a model of one block without its ends */
} mn_unit;

extern const mn_field mn_unit_fields[];
/* vocab_size: for a model whose recipe leaves it to a tokenizer that is not at hand; 0: refuse. */
mn_status mn_unit_parse(mn_arena *arena, const mn_value *root, int64_t vocab_size, mn_unit *out);
void mn_unit_free(mn_unit *u);
/* It can be run as a stream, as far as its keys tell; else MN_ERR_CONFIG says why not. */
mn_status mn_unit_check_stream(const mn_unit *u);
/* Leaves of the scope's graph for the unit's inputs: of a mixer or a block x [B,T,D], exact type; of a model its ports. */
void mn_unit_inputs(mn_scope *s, const mn_unit *u, mn_sizes sizes, mn_inputs which, mn_model_io *io);
/* y [B,T,D]; of a model what it says (mn_model_answer); exact type. Moves the position on. */
mn_tensor *mn_unit_apply(mn_scope *s, const mn_unit *u, const mn_model_io *in);
/* The unit over leaves of its own for every input: its answer, or with `loss` a scalar to differentiate: a model's that has hidden
 * and head the next token's, over an input `target`, any other model's the sum of its answer; a mixer's or a block's is y all the same. */
mn_tensor *mn_unit_build(mn_scope *s, const mn_unit *u, mn_sizes sizes, mn_inputs which, bool loss);

#endif
