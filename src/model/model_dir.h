/* model_dir.h - the directory that a model is written into: config.json, tokenizer.json where there is a vocabulary and, at last,
 * model.safetensors, so where the weights are, all is. Nothing is replaced but what stood there when it was looked at: whoever decides
 * that a directory is free, or one's own, looks first, then decides, then saves. */
#ifndef MN_MODEL_DIR_H
#define MN_MODEL_DIR_H

#include "base/file.h"
#include "format/tokenizer.h"
#include "model/params.h"

typedef struct mn_model_dir {
  mn_file_stamp config, tokenizer, weights;
} mn_model_dir;

mn_status mn_model_dir_look(const char *dir, mn_model_dir *there);
/* tok may be NULL. MN_ERR_IO: another program has written one of the files since; it stays as it is. After a failure what this call wrote where
 * nothing was is gone again. `there` is then of what stands there now, for the next time. */
mn_status mn_model_dir_save(const char *dir, const mn_model *m, const mn_params *p, const mn_tokenizer *tok, mn_model_dir *there);

#endif
