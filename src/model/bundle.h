/* bundle.h - a trained model as a directory: config.json, model.safetensors and, for text, tokenizer.json, opened together
 * with the backend they run on. What generate, stream and the public API begin with. */
#ifndef MN_BUNDLE_H
#define MN_BUNDLE_H

#include "format/tokenizer.h"
#include "model/params.h"

typedef struct mn_bundle {
  mn_backend *backend;
  mn_model *model;
  mn_params *params;       /* f32; mapped where they can be */
  mn_tokenizer *tokenizer; /* NULL: the model was trained on token ids, or its tokenizer.json is not there */
} mn_bundle;

/* backend: by name (backend.h); NULL: the usual one. threads 0: all. A tokenizer with more tokens than the model's vocabulary is refused. Close also after a failure. */
mn_status mn_bundle_open(const char *dir, const char *backend, int threads, mn_bundle *out);
void mn_bundle_close(mn_bundle *b);
/* MN_OK, or what is missing and where, for callers that need text. */
mn_status mn_bundle_need_tokenizer(const mn_bundle *b, const char *dir);

#endif
