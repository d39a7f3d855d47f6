/* unit.c - see unit.h. */
#include "model/unit.h"
#include "graph/fused_loss.h"

#include <stdio.h>
#include <string.h>

typedef struct unit_config {
  int64_t d_model;
  const mn_value *mixer, *block, *model;
} unit_config;
#define S unit_config
const mn_field mn_unit_fields[] = {MN_FIELD_INT(S, d_model, 0, 0, 1 << 20, "width D of a mixer's or a block's input"),
                                   MN_FIELD_VALUE(S, mixer, "one mixer"), MN_FIELD_VALUE(S, block, "one block"),
                                   MN_FIELD_VALUE(S, model, "a whole model"), MN_FIELD_END};
#undef S

mn_status mn_unit_parse(mn_arena *arena, const mn_value *root, int64_t vocab_size, mn_unit *out) {
  unit_config c;
  *out = (mn_unit){0};
  const mn_value *model = mn_value_get(root, "model");
  if (model && !mn_value_get(root, "mixer") && !mn_value_get(root, "block")) { /* a training recipe is read for its model alone */
    out->kind = MN_UNIT_MODEL;
    MN_TRY(mn_model_parse(model, NULL, vocab_size, &out->model));
    out->d_model = out->model->config.d_model;
    return MN_OK;
  }
  MN_TRY(mn_config_read(arena, root, NULL, mn_unit_fields, &c));
  if (!c.mixer == !c.block || c.model) return mn_value_fail(root, "a recipe for apply and inspect names one of mixer, block, model");
  if (c.d_model < 1) return mn_config_fail(root, NULL, "d_model", "must be given beside a mixer or a block");
  out->d_model = c.d_model;
  if (c.mixer) {
    out->kind = MN_UNIT_MIXER;
    return mn_mixer_parse(arena, c.mixer, NULL, c.d_model, &out->mixer);
  }
  out->kind = MN_UNIT_BLOCK;
  if (mn_config_given(c.block, "condition"))
    return mn_config_fail(c.block, NULL, "condition",
                          "needs a model around the block, which says what its rows are told: write model: {...}");
  const mn_value *map =
      mn_value_map(arena, 4, (const char *const[]){"d_model", "vocab_size", "layers", "block"},
                   (const mn_value *const[]){mn_value_int(arena, c.d_model), mn_value_int(arena, 1), mn_value_int(arena, 1), c.block});
  return map ? mn_model_parse(map, NULL, 0, &out->model) : MN_ERR_MEMORY;
}

void mn_unit_free(mn_unit *u) { mn_model_free(u->model); }

mn_status mn_unit_check_stream(const mn_unit *u) {
  if (u->kind == MN_UNIT_MODEL) return mn_model_check_stream(u->model);
  const mn_mixer *m = u->kind == MN_UNIT_BLOCK ? &u->model->stack.blocks[0].mixer : &u->mixer;
  const char *why = m->def->not_causal ? m->def->not_causal(m->config) : NULL;
  return why ? mn_fail(MN_ERR_CONFIG, "a mixer of type %s cannot be run as a stream: %s", m->def->name, why) : MN_OK;
}

void mn_unit_inputs(mn_scope *s, const mn_unit *u, mn_sizes sizes, mn_inputs which, mn_model_io *io) {
  *io = (mn_model_io){0};
  if (u->kind == MN_UNIT_MODEL) mn_model_inputs(s, u->model, sizes, which, io);
  else mn_io_put(io, "x", mn_input(mn_scope_graph(s), "x", mn_scope_exact(s), MN_SHAPE(sizes.B, sizes.T, u->d_model)));
}

static mn_tensor *of_part(mn_scope *s, const mn_unit *u, mn_tensor *x) {
  mn_graph *g = mn_scope_graph(s);
  mn_tensor *y = u->kind == MN_UNIT_BLOCK ? mn_block_apply(s, &u->model->stack.blocks[0], x, NULL)
                                          : mn_mixer_apply(s, &u->mixer, mn_cast(g, x, mn_scope_compute(s)));
  mn_scope_advance(s, mn_dim(x, 1));
  return mn_cast(g, y, mn_scope_exact(s));
}

mn_tensor *mn_unit_apply(mn_scope *s, const mn_unit *u, const mn_model_io *in) {
  mn_model_io out;
  if (u->kind != MN_UNIT_MODEL) return of_part(s, u, mn_io_get(in, "x"));
  mn_model_build(s, u->model, in, &out);
  return mn_model_answer(s, &out);
}

mn_tensor *mn_unit_build(mn_scope *s, const mn_unit *u, mn_sizes sizes, mn_inputs which, bool loss) {
  mn_graph *g = mn_scope_graph(s);
  mn_model_io in, out;
  mn_unit_inputs(s, u, sizes, which, &in);
  if (u->kind != MN_UNIT_MODEL) return of_part(s, u, mn_io_get(&in, "x"));
  mn_model_build(s, u->model, &in, &out);
  mn_tensor *h = mn_io_get(&out, "hidden"), *w = mn_io_get(&out, "head");
  if (!loss || mn_graph_status(g) != MN_OK) return mn_model_answer(s, &out);
  if (!h || !w) return mn_reshape(g, mn_sum(g, mn_model_answer(s, &out), MN_ALL_AXES), (mn_shape){0});
  int64_t n = mn_dim(h, 0) * mn_dim(h, 1);
  mn_tensor *target = mn_input(g, "target", MN_I32, MN_SHAPE(n));
  return mn_linear_cross_entropy(g, mn_reshape(g, h, MN_SHAPE(n, mn_dim(h, 2))), w, target, NULL, NULL);
}
