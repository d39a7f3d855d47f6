/* chat_sessions.h - the dialogues of a model by name: FOLDER/NAME.safetensors, each a session (run/session.h). */
#ifndef MN_CHAT_SESSIONS_H
#define MN_CHAT_SESSIONS_H

#include "cli/cli.h"
#include "cli/session_file.h"
#include "run/session.h"

/* The file of a dialogue; free it. A name that is no plain name is refused. */
mn_status mn_chat_path(const char *folder, const char *name, char **out);
/* The name of the dialogue of a file; free it. */
char *mn_chat_name(const char *path);
/* The dialogue of that name is this process's until it is closed. The folder is made where it is missing; a link in its place is refused.
 * fresh: it must not be there yet. `bytes`: what its file is about to take. */
mn_status mn_chat_open(const char *folder, const char *name, bool fresh, uint64_t bytes, mn_session_file *out);
/* What the folder holds, for people or as JSON. `s`: of the model, for what each session holds; NULL: dialogues in a template's form alone. */
mn_status mn_chat_list(mn_cli *cli, const char *folder, mn_session *s);

#endif
