/* bundle.c - see bundle.h. */
#include "model/bundle.h"

#include "base/file.h"

#include <stdlib.h>

static mn_status open_tokenizer(const char *dir, mn_bundle *b) {
  char *path = mn_path_join(dir, "tokenizer.json"), *weights = mn_path_join(dir, "model.safetensors"), hash[33];
  if (!path || !weights) {
    free(path);
    free(weights);
    return MN_ERR_MEMORY;
  }
  mn_status status = MN_OK;
  if (mn_file_exists(path)) {
    status = mn_tokenizer_load(path, &b->tokenizer);
    if (status == MN_OK) {
      mn_tokenizer_hash(b->tokenizer, hash);
      status = mn_origin_check_tokenizer(&b->params->origin, weights, path, hash);
    }
    long long have = status == MN_OK ? mn_tokenizer_vocab_size(b->tokenizer) : 0, room = b->model->config.vocab_size;
    if (have > room)
      status = mn_fail(MN_ERR_CONFIG, "%s has %lld tokens, but the model beside it has room for %lld: it belongs to another model", path,
                       have, room);
  }
  free(path);
  free(weights);
  return status;
}

mn_status mn_bundle_open(const char *dir, const char *backend, int threads, mn_bundle *out) {
  *out = (mn_bundle){0};
  mn_file_info info;
  MN_TRY(mn_file_stat(dir, &info));
  if (!info.is_dir) return mn_fail(MN_ERR_IO, "%s is not a directory; a model is the directory that mneme train --out made", dir);
  mn_status status = mn_backend_open(backend, threads, &out->backend);
  if (status == MN_OK) status = mn_model_open_dir(dir, out->backend, MN_F32, &out->model, &out->params);
  if (status == MN_OK) status = open_tokenizer(dir, out);
  if (status != MN_OK) mn_bundle_close(out);
  return status;
}

void mn_bundle_close(mn_bundle *b) {
  mn_tokenizer_free(b->tokenizer);
  mn_params_free(b->params);
  mn_model_free(b->model);
  mn_backend_free(b->backend);
  *b = (mn_bundle){0};
}

mn_status mn_bundle_need_tokenizer(const mn_bundle *b, const char *dir) {
  if (b->tokenizer) return MN_OK;
  return mn_fail(MN_ERR_CONFIG, "%s has no tokenizer.json, so this model knows token ids only; put the tokenizer it was trained with there",
                 dir);
}
