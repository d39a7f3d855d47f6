/* inspect_files.h - what `mneme inspect` says of files: whether checksums hold, and what they belong to. */
#ifndef MN_INSPECT_FILES_H
#define MN_INSPECT_FILES_H

#include <jansson.h>
#include <stdbool.h>

#include "mneme.h"

/* Does the name say that it is a file of tensors? */
bool mn_is_safetensors(const char *path);
/* Each reads all that there is to check and adds a record to the list: {file, checksums, note, ...}. What is damaged, or does
 * not belong together, is the returned fault. */
mn_status mn_inspect_safetensors(const char *path, json_t *list);
mn_status mn_inspect_model_dir(const char *dir, json_t *list);
void mn_print_files(const json_t *list);

#endif
