#include "trace/trace-migration_memserver.h"
