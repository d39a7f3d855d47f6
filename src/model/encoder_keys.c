/* encoder_keys.c - see encoder_keys.h. */
#include "model/encoder_keys.h"

typedef struct stack_keys {
  int64_t layers;
  const mn_value *block, *blocks;
} stack_keys;
static const mn_field stack_fields[] = {MN_FIELD_INT(stack_keys, layers, 2, 1, 4096, "how many times `block` stands in the encoder"),
                                        MN_FIELD_VALUE(stack_keys, block, "one block"),
                                        MN_FIELD_VALUE(stack_keys, blocks, "several: a list of blocks, each with repeat: n"), MN_FIELD_END};

mn_status mn_encoder_parse(const mn_model *m, const mn_value *map, const char *where, const mn_value *encoder, mn_stack *out) {
  stack_keys keys;
  if (!encoder || encoder->kind != MN_MAP)
    return mn_config_fail(map, where, "encoder", "must be a map: {layers: 2, block: {mixer: {type: attention, causal: false}}}");
  MN_TRY(mn_config_read(m->arena, encoder, NULL, stack_fields, &keys));
  const mn_stack_config stack = {.d_model = m->config.d_model,
                                 .layers = keys.layers,
                                 .norm = m->config.norm,
                                 .norm_eps = m->config.norm_eps,
                                 .block = keys.block,
                                 .blocks = keys.blocks};
  return mn_stack_parse(m->arena, encoder, NULL, &stack, out);
}

const mn_value *mn_encoder_to_value(mn_arena *arena, const mn_stack *stack) {
  stack_keys keys = {.layers = stack->n, .blocks = mn_stack_to_value(arena, stack)};
  const mn_config_part part = {stack_fields, &keys};
  return keys.blocks ? mn_config_to_value(arena, &part, 1) : NULL;
}
