/* inspect_checkpoint.h - what `mneme inspect` says of other programs' models: a GGUF file, a directory of Hugging Face's. */
#ifndef MN_INSPECT_CHECKPOINT_H
#define MN_INSPECT_CHECKPOINT_H

#include "cli/cli.h"

/* Is there a GGUF file or a directory of Hugging Face's at `path`? Anything else, nothing too, is not. */
bool mn_is_checkpoint(const char *path);
/* Prints metadata or settings, and how many tensors of which type; with --params each tensor. Checksums are checked where the file has
 * some. Whether Mneme opens it as a model, and if not why not, is said too. */
mn_status mn_inspect_checkpoint(mn_cli *cli);

#endif
