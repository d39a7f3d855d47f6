/* shards.h - text files as binary token shards in a cache directory (private to src/train). */
#ifndef MN_SHARDS_H
#define MN_SHARDS_H

#include <glob.h>

#include "base/file.h"
#include "source/data.h"

/* The files that the patterns name, in order; `key` (of the section `data`) is for messages. Free with globfree. */
mn_status mn_data_expand(const mn_strings *patterns, const char *key, glob_t *found);
mn_status mn_data_cache_dir(const mn_data_config *config, char **out); /* malloc'ed */

typedef struct shard {
  mn_map map;
  int width;          /* bytes of an id: 2 or 4 */
  int64_t n;          /* ids                    */
  int64_t text_bytes; /* of the file            */
  char key[MN_HASH_HEX];
  bool touched; /* read since its map was checked */
} shard;

typedef struct shard_options {
  const mn_tokenizer *tok;
  const char *separator; /* NULL: a file is a document */
  const char *cache;
  const mn_watch *watch; /* or NULL */
} shard_options;

/* Opens the shard of a text file, making it when there is no good one. */
mn_status mn_shard_open(const shard_options *options, const char *path, shard *out);
void mn_shard_close(shard *s);
static inline int32_t mn_shard_id(const shard *s, int64_t i) {
  return s->width == 2 ? ((const uint16_t *)s->map.data)[i] : ((const int32_t *)s->map.data)[i];
}

#endif
