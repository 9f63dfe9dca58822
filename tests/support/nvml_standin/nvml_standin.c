/*
 * A stand-in for libnvidia-ml.so.1, for tests on machines without a GPU. It is no driver and no copy of NVIDIA's
 * library: it answers the calls that Berth makes through the real nvidia-ml-py with what a text file says, read anew
 * at every call, so that a test changes GPUs, processes and errors while the program under test runs.
 *
 * $NVML_STANDIN names the file. Its lines, of which unindented ones belong to the node and others to the GPU above:
 *
 *   driver 580.65.06          version of the driver
 *   cuda 13000                newest CUDA version that it serves
 *   start 0                   what nvmlInit returns: 0, or an error such as 9 (driver not loaded)
 *   boot 1                    with another number than at nvmlInit every call says "uninitialized": the driver restarted
 *   gpu GPU-1 NVIDIA H100     a GPU: uuid, product
 *     memory 81559 1024 600   MiB in all, used, reserved; without the last, drivers before 510
 *     utilisation 5
 *     temperature 40
 *     power 70000             milliwatts
 *     ecc 0                   uncorrected errors
 *     remapped 0              whether remapping failed
 *     recovery 0              recovery action
 *     events                  XID errors are reported
 *     xid 79                  one of them; each line is reported once
 *     process 4711 2048       pid, MiB (- when unknown)
 *     graphics 4711 64        the same in the list of those that draw
 *     lost                    the GPU fell off the bus: error 15 for everything, until the next nvmlInit without it
 *     nameless                … even for its handle
 *     mig MIG-1 1g.10gb       a MIG device; memory and process lines below belong to it
 *
 * What is not in the file is "not supported".
 */

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
  TIMEOUT = 10, GPU_IS_LOST = 15,
};
enum { MOST_GPUS = 32, MOST_PARTS = 8, MOST_PROCESSES = 256, MOST_XIDS = 64, RECOVERY_ACTION = 230 };

typedef unsigned long long u64;
static const u64 MIB = 1024 * 1024;
static const u64 UNKNOWN = ~0ULL;

struct process { unsigned pid; u64 memory; };

struct device {
  char uuid[96], name[160];
  int has_memory, has_reserved;
  u64 total, used, reserved;
  int processes, drawing;
  struct process process[MOST_PROCESSES], draws[MOST_PROCESSES];
};

struct gpu {
  struct device whole, part[MOST_PARTS];
  int parts, lost, nameless, events, xids;
  unsigned xid[MOST_XIDS];
  /* -1: not supported */
  long utilisation, temperature, power, ecc, remapped, recovery;
};

static struct { char driver[80]; int cuda, start, boot, gpus; struct gpu gpu[MOST_GPUS]; } node;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int initialized, boot_at_start;
static int reported[MOST_GPUS], registered[MOST_GPUS], lost[MOST_GPUS];

static void read_process(const char *line, struct process *list, int *count) {
  char memory[32];
  struct process *one = &list[*count];
  if (*count < MOST_PROCESSES && sscanf(line, " %*s %u %31s", &one->pid, memory) == 2) {
    one->memory = memory[0] == '-' ? UNKNOWN : strtoull(memory, NULL, 10) * MIB;
    ++*count;
  }
}

static void read_gpu_line(const char *word, const char *line, struct gpu *gpu, struct device **device) {
  if (!strcmp(word, "mig") && gpu->parts < MOST_PARTS) {
    char profile[64];
    *device = &gpu->part[gpu->parts++];
    sscanf(line, " %*s %95s %63s", (*device)->uuid, profile);
    snprintf((*device)->name, sizeof (*device)->name, "%.90s MIG %s", gpu->whole.name, profile);
  } else if (!strcmp(word, "memory")) {
    u64 total, used, reserved = 0;
    int found = sscanf(line, " %*s %llu %llu %llu", &total, &used, &reserved);
    (*device)->has_memory = found >= 2;
    (*device)->has_reserved = found == 3;
    (*device)->total = total * MIB, (*device)->used = used * MIB, (*device)->reserved = reserved * MIB;
  } else if (!strcmp(word, "process")) {
    read_process(line, (*device)->process, &(*device)->processes);
  } else if (!strcmp(word, "graphics")) {
    read_process(line, (*device)->draws, &(*device)->drawing);
  } else if (!strcmp(word, "xid") && gpu->xids < MOST_XIDS) {
    sscanf(line, " %*s %u", &gpu->xid[gpu->xids++]);
  } else if (!strcmp(word, "lost")) {
    gpu->lost = 1;
  } else if (!strcmp(word, "nameless")) {
    gpu->nameless = 1;
  } else if (!strcmp(word, "events")) {
    gpu->events = 1;
  } else {
    const struct { const char *word; long *value; } numbers[] = {
      {"utilisation", &gpu->utilisation}, {"temperature", &gpu->temperature}, {"power", &gpu->power},
      {"ecc", &gpu->ecc}, {"remapped", &gpu->remapped}, {"recovery", &gpu->recovery},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
      if (!strcmp(word, numbers[i].word)) sscanf(line, " %*s %ld", numbers[i].value);
  }
}

static void read_file(void) {
  char line[512], word[32];
  struct gpu *gpu = NULL;
  struct device *device = NULL;
  const char *path = getenv("NVML_STANDIN");
  FILE *file = path ? fopen(path, "r") : NULL;
  memset(&node, 0, sizeof node);
  if (!file) {
    node.start = 9; /* driver not loaded */
    return;
  }
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    if (sscanf(line, " %31s", word) != 1) continue;
    if (!strcmp(word, "driver")) sscanf(line, "%*s %79s", node.driver);
    else if (!strcmp(word, "cuda")) sscanf(line, "%*s %d", &node.cuda);
    else if (!strcmp(word, "start")) sscanf(line, "%*s %d", &node.start);
    else if (!strcmp(word, "boot")) sscanf(line, "%*s %d", &node.boot);
    else if (!strcmp(word, "gpu") && node.gpus < MOST_GPUS) {
      gpu = &node.gpu[node.gpus++];
      gpu->utilisation = gpu->temperature = gpu->power = gpu->ecc = gpu->remapped = gpu->recovery = -1;
      device = &gpu->whole;
      sscanf(line, "%*s %95s %95[^\n]", device->uuid, device->name);
    } else if (gpu) read_gpu_line(word, line, gpu, &device);
  }
  fclose(file);
}

/* Reads the file and says whether calls are possible at all. Holds the lock until `leave`. */
static int enter(void) {
  pthread_mutex_lock(&lock);
  read_file();
  if (!initialized || node.boot != boot_at_start) return UNINITIALIZED;
  return node.start; /* a driver that is gone is gone for all calls */
}

static int leave(int result) {
  pthread_mutex_unlock(&lock);
  return result;
}

/* A handle is the number of the GPU and, in its low byte, that of the MIG device; both from one. */
static void *handle_of(int gpu, int part) { return (void *)(size_t)(((gpu + 1) << 8) | (part + 1)); }

static int find(void *handle, struct gpu **gpu, struct device **device) {
  size_t number = (size_t)handle;
  int index = (int)(number >> 8) - 1, part = (int)(number & 0xff) - 1;
  int result = enter();
  if (result) return result;
  if (index < 0 || index >= node.gpus) return GPU_IS_LOST; /* it was there when the handle was made */
  *gpu = &node.gpu[index];
  if (part >= (*gpu)->parts) return NOT_FOUND;
  *device = part < 0 ? &(*gpu)->whole : &(*gpu)->part[part];
  lost[index] |= (*gpu)->lost;
  return lost[index] ? GPU_IS_LOST : SUCCESS;
}

#define FIND(handle) \
  struct gpu *gpu; \
  struct device *device; \
  int result = find(handle, &gpu, &device); \
  if (result) return leave(result)

static int number(void *handle, size_t offset, unsigned *value) {
  FIND(handle);
  long found = *(long *)((char *)gpu + offset);
  if (found < 0 || device != &gpu->whole) return leave(NOT_SUPPORTED);
  *value = (unsigned)found;
  return leave(SUCCESS);
}
#define NUMBER(handle, field, value) number(handle, offsetof(struct gpu, field), value)

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  pthread_mutex_lock(&lock);
  read_file();
  if (!node.start) {
    initialized = 1;
    boot_at_start = node.boot;
    memset(registered, 0, sizeof registered);
    memset(lost, 0, sizeof lost);
  }
  return leave(node.start);
}

int nvmlShutdown(void) {
  int result = enter();
  initialized = 0;
  return leave(result);
}

const char *nvmlErrorString(int code) {
  switch (code) {
  case SUCCESS: return "Success";
  case GPU_IS_LOST: return "GPU is lost";
  case NOT_SUPPORTED: return "Not Supported";
  default: return "stand-in error";
  }
}

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
  int result = enter();
  if (!result) snprintf(version, length, "%s", node.driver);
  return leave(result);
}

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
  int result = enter();
  if (!result) *version = node.cuda;
  return leave(!result && !node.cuda ? NOT_SUPPORTED : result);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
  int result = enter();
  if (!result) *count = node.gpus;
  return leave(result);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
  int result = enter();
  if (result) return leave(result);
  if ((int)index >= node.gpus) return leave(INVALID_ARGUMENT);
  if (node.gpu[index].nameless) return leave(GPU_IS_LOST);
  *handle = handle_of(index, -1);
  return leave(SUCCESS);
}

int nvmlDeviceGetUUID(void *handle, char *uuid, unsigned length) {
  FIND(handle);
  snprintf(uuid, length, "%s", device->uuid);
  return leave(SUCCESS);
}

int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
  FIND(handle);
  snprintf(name, length, "%s", device->name);
  return leave(SUCCESS);
}

int nvmlDeviceGetMinorNumber(void *handle, unsigned *minor) {
  FIND(handle);
  *minor = (unsigned)(gpu - node.gpu);
  return leave(device == &gpu->whole ? SUCCESS : NOT_SUPPORTED);
}

struct memory { u64 total, free, used; };

int nvmlDeviceGetMemoryInfo(void *handle, struct memory *memory) {
  FIND(handle);
  if (!device->has_memory) return leave(NOT_SUPPORTED);
  *memory = (struct memory){device->total, device->total - device->used, device->used};
  return leave(SUCCESS);
}

struct memory_v2 { unsigned version; u64 total, reserved, free, used; };

int nvmlDeviceGetMemoryInfo_v2(void *handle, struct memory_v2 *memory) {
  FIND(handle);
  if (!device->has_memory || !device->has_reserved) return leave(NOT_SUPPORTED);
  memory->total = device->total, memory->reserved = device->reserved, memory->used = device->used;
  memory->free = device->total - device->reserved - device->used;
  return leave(SUCCESS);
}

int nvmlDeviceGetUtilizationRates(void *handle, unsigned rates[2]) {
  rates[1] = 0;
  return NUMBER(handle, utilisation, &rates[0]);
}

int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
  (void)sensor;
  return NUMBER(handle, temperature, celsius);
}

int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) { return NUMBER(handle, power, milliwatts); }

int nvmlDeviceGetTotalEccErrors(void *handle, int type, int counter, u64 *count) {
  unsigned found = 0;
  int result = NUMBER(handle, ecc, &found);
  (void)type, (void)counter;
  *count = found;
  return result;
}

int nvmlDeviceGetRemappedRows(void *handle, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                              unsigned *failed) {
  *corrected = *uncorrected = *pending = 0;
  return NUMBER(handle, remapped, failed);
}

struct field_value {
  unsigned field, scope;
  long long timestamp, latency;
  unsigned type;
  int result;
  union { double d; unsigned ui; u64 ull; } value;
};

int nvmlDeviceGetFieldValues(void *handle, int count, struct field_value *values) {
  for (int i = 0; i < count; i++) {
    values[i].value.ull = 0;
    values[i].result = values[i].field == RECOVERY_ACTION ? NUMBER(handle, recovery, &values[i].value.ui) : NOT_SUPPORTED;
    if (values[i].result == GPU_IS_LOST || values[i].result == UNINITIALIZED) return values[i].result;
  }
  return SUCCESS;
}

struct process_info { unsigned pid; u64 memory; unsigned gpu_instance, compute_instance; };

static int list(const struct process *found, int many, unsigned *count, struct process_info *infos) {
  unsigned room = *count;
  *count = many;
  if (many == 0) return SUCCESS;
  if (!infos || room < (unsigned)many) return INSUFFICIENT_SIZE;
  for (int i = 0; i < many; i++) infos[i] = (struct process_info){found[i].pid, found[i].memory, ~0U, ~0U};
  return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, struct process_info *infos) {
  FIND(handle);
  return leave(list(device->process, device->processes, count, infos));
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned *count, struct process_info *infos) {
  FIND(handle);
  return leave(list(device->draws, device->drawing, count, infos));
}

int nvmlDeviceGetMigMode(void *handle, unsigned *current, unsigned *pending) {
  FIND(handle);
  *current = *pending = gpu->parts > 0;
  return leave(gpu->parts ? SUCCESS : NOT_SUPPORTED);
}

int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
  FIND(handle);
  *count = MOST_PARTS;
  return leave(SUCCESS);
}

int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **part) {
  FIND(handle);
  if ((int)index >= gpu->parts) return leave(NOT_FOUND);
  *part = handle_of((int)(gpu - node.gpu), (int)index);
  return leave(SUCCESS);
}

int nvmlEventSetCreate(void **set) {
  int result = enter();
  *set = &registered;
  return leave(result);
}

int nvmlEventSetFree(void *set) {
  (void)set;
  return leave(enter());
}

int nvmlDeviceRegisterEvents(void *handle, u64 types, void *set) {
  (void)types, (void)set;
  FIND(handle);
  if (!gpu->events) return leave(NOT_SUPPORTED);
  registered[gpu - node.gpu] = 1;
  return leave(SUCCESS);
}

struct event { void *device; u64 type, data; unsigned gpu_instance, compute_instance; };

/* The real one sleeps in the driver; this one looks at the file every few milliseconds. */
int nvmlEventSetWait_v2(void *set, struct event *event, unsigned milliseconds) {
  (void)set;
  for (unsigned waited = 0;; waited += 10) {
    int result = enter();
    if (result) return leave(result);
    for (int i = 0; i < node.gpus; i++) {
      if (node.gpu[i].xids < reported[i]) reported[i] = node.gpu[i].xids; /* another file */
      if (registered[i] && reported[i] < node.gpu[i].xids) {
        *event = (struct event){handle_of(i, -1), 8, node.gpu[i].xid[reported[i]++], ~0U, ~0U};
        return leave(SUCCESS);
      }
    }
    leave(TIMEOUT);
    if (waited >= milliseconds) return TIMEOUT;
    usleep(10 * 1000);
  }
}
