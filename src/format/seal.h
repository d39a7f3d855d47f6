/* seal.h - checksums of value trees. A map that we write as JSON (config.json, recipe.json, trainer.json) begins with the
 * member `checksum`: the content hash of the map without it, as JSON on one line. So spaces and line ends are free, and a
 * changed value is noticed. Who edits such a file by hand removes that line: a file without it is taken as it is. */
#ifndef MN_SEAL_H
#define MN_SEAL_H

#include "format/value.h"

mn_status mn_value_hash(const mn_value *v, char hex[33]); /* of its JSON on one line */
/* The map with its checksum; what is no map stays as it is. */
mn_status mn_seal(mn_arena *arena, const mn_value *v, const mn_value **out);
/* Checks and takes off the checksum. *sealed (may be NULL): there was one. */
mn_status mn_unseal(mn_arena *arena, const mn_value *v, const mn_value **out, bool *sealed);

#endif
