/* whole.h - a model that must see a whole sequence, or a whole picture, before it says what it is: one plan for each length. */
#ifndef MN_RUN_WHOLE_H
#define MN_RUN_WHOLE_H

#include "run/program.h"

typedef struct mn_whole mn_whole;

/* A model whose first input is `frames` or `images` and whose output `logits` is [B,N]; another is MN_ERR_CONFIG. model and params must
 * outlive it. */
mn_status mn_whole_new(const mn_model *model, const mn_params *params, mn_dtype compute, mn_whole **out);
void mn_whole_free(mn_whole *w);
int64_t mn_whole_classes(const mn_whole *w); /* N */
/* n frames of C numbers, followed by zeros that do not count up to `padded` places; `logits` [N] is valid until the next call. */
mn_status mn_whole_frames(mn_whole *w, const float *frames, int64_t n, int64_t padded, const float **logits);
mn_status mn_whole_image(mn_whole *w, const float *image, const float **logits);

#endif
