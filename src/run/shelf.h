/* shelf.h - conversations by name, in as much memory as there is for them: those that were used least lately go to files and come back when
 * they are asked for.
 *
 * Who takes a conversation has it alone until it is given back. The folder holds NAME.safetensors for each (conversation_file.c): what was
 * put away, or saved. An owner (a number; 0: everybody) has his own conversations, and files NAME@OWNER.safetensors: the name of another's is
 * one that is not there. Those of everybody, as are files without an owner, each owner sees beside his own, unless he has one of that name; a new one is
 * his. Without a folder the least lately used are forgotten when the memory is full. Any number of threads may ask. */
#ifndef MN_SHELF_H
#define MN_SHELF_H

#include "format/tokenizer.h"
#include "run/conversation.h"

typedef struct mn_shelf mn_shelf;

typedef struct mn_shelf_config {
  const mn_model *model; /* these three outlive it */
  const mn_params *params;
  mn_session_config session; /* its program is shared by all; NULL: one is made */
  mn_conversation_config conversation;
  const char *folder; /* copied; NULL: none. Made when the first file is written */
  size_t bytes;       /* for conversations that nobody has taken; 0: 4 GiB */
  bool keeps;         /* all that are given back are saved, and stay when the program ends; else files are there for room alone, and
                       * mn_shelf_free removes those it wrote */
} mn_shelf_config;

mn_status mn_shelf_new(const mn_shelf_config *config, mn_shelf **out);
void mn_shelf_free(mn_shelf *s); /* nobody has a conversation any more; may be NULL */

/* Of those that are kept: what could not be saved when it was given back is saved now, under the name NAME-2 (or -3 ...) where another process has
 * written its file meanwhile; each that cannot is named in the log, and the first failure comes back. All have been given back. */
mn_status mn_shelf_keep(mn_shelf *s);

/* The one of that name; where there is none, a new one when `make`, else NULL in *out. Names are as those of files (mn_name_fault),
 * without '@'.
 * MN_ERR_CONFIG: somebody has it, in this process or, where they are kept, in another. */
mn_status mn_shelf_take(mn_shelf *s, uint64_t owner, const char *name, bool make, mn_conversation **out);
/* What was taken comes back: note (or NULL) is kept with it, as mn_conversation_save does. The conversation is the shelf's also when this
 * fails: it could not be saved then. */
mn_status mn_shelf_give(mn_shelf *s, uint64_t owner, const char *name, mn_conversation *c, const char *note);
/* The note it was given back with; NULL: none. Copied into `out`. */
mn_status mn_shelf_note(mn_shelf *s, uint64_t owner, const char *name, mn_text *out);
/* What it stands at; nothing: there is none, somebody has it, or it is in its file. Appended to `out`. */
mn_status mn_shelf_tokens(mn_shelf *s, uint64_t owner, const char *name, mn_ids *out);
/* Is there one of that name, in memory or in a file? *holder: whose it is, 0 or `owner`; of one that is not there, whose it would be. */
bool mn_shelf_has(mn_shelf *s, uint64_t owner, const char *name, uint64_t *holder);
/* Has another process its file open just now? */
bool mn_shelf_is_elsewhere(mn_shelf *s, uint64_t owner, const char *name);
/* `to` begins as a copy of `from`; there is no `to` yet. */
mn_status mn_shelf_fork(mn_shelf *s, uint64_t owner, const char *from, const char *to);
/* Out of memory and off the disk. There being none is no error. */
mn_status mn_shelf_remove(mn_shelf *s, uint64_t owner, const char *name);

/* ---- beginnings that many share ---- */
/* An independent conversation that has read the longest beginning of these tokens that any in memory can go back to, `least` of them at
 * least; it stands there. It is a copy, or one that was laid down and is nothing but that beginning. Only the owner's are looked at, and of
 * those that have a name everybody's, too. NULL in *out: there is none. */
mn_status mn_shelf_begin(mn_shelf *s, uint64_t owner, const int32_t *tokens, int64_t n, int64_t least, mn_conversation **out);
/* The same, or a new one that has read nothing. */
mn_status mn_shelf_begin_or_new(mn_shelf *s, uint64_t owner, const int32_t *tokens, int64_t n, int64_t least, mn_conversation **out);
/* The conversation becomes the shelf's, without a name, for who begins so later. It is forgotten when room is needed, or when 256 that were used
 * later have no name either, and at once where another of the owner's without a name can stand there. */
void mn_shelf_lay(mn_shelf *s, uint64_t owner, mn_conversation *c);

typedef struct mn_shelf_entry {
  const char *name;
  bool taken, in_memory;
  int64_t length; /* in tokens; -1: it is a file that nobody has opened yet */
  size_t bytes;   /* in memory, or of the file */
} mn_shelf_entry;
/* Each that the owner sees once, by name; the text is valid inside `tell` only. */
mn_status mn_shelf_each(mn_shelf *s, uint64_t owner, void (*tell)(void *ctx, const mn_shelf_entry *e), void *ctx);
size_t mn_shelf_bytes(mn_shelf *s); /* in memory, those that are taken among them */

#endif
