/* encoder_keys.h - the key `encoder` of a model that has an encoder beside its own blocks: {layers: 2, block: {...}} or {blocks: [...]}. */
#ifndef MN_ENCODER_KEYS_H
#define MN_ENCODER_KEYS_H

#include "model/model.h"

/* map: the model's, where: its place; encoder: the key's value. The encoder's width and norms are the model's. */
mn_status mn_encoder_parse(const mn_model *m, const mn_value *map, const char *where, const mn_value *encoder, mn_stack *out);
/* For config.json; NULL when there is no memory. */
const mn_value *mn_encoder_to_value(mn_arena *arena, const mn_stack *stack);

#endif
