/* model_options.h - a model opened as a command line asks: what verbs that use models have in common. */
#ifndef MN_MODEL_OPTIONS_H
#define MN_MODEL_OPTIONS_H

#include "checkpoint/bundle.h"
#include "cli/cli.h"

#define MN_EXACT_OPTION                                                                                                                    \
  { "exact", NULL, NULL, "of a model in blocks of few bits or f16: take activations as they are, never rounded to fewer bits", 0 }
#define MN_CACHE_OPTION                                                                                                                    \
  { "cache", "TYPE", NULL, "what attention keeps of each token in: f32 (as it is computed; the usual), bf16, f16 or q8", 0 }
#define MN_CONTEXT_OPTION                                                                                                                  \
  { "context", "N", NULL, "tokens of a stream, at most, where the model has room for more; saved sessions go on with the same N", 0 }

/* mn_bundle_open, then --exact, --cache and --context, of the verbs that have them. */
mn_status mn_cli_open(const mn_cli *cli, const char *path, mn_bundle *out);

#endif
