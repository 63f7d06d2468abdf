/* A stand-in for the driver's library (libnvidia-ml.so.1). The file NVML_FILE says what it answers, read at each call:
   first a line "INIT COUNT HANG" with the codes of nvmlInit and nvmlDeviceGetCount and whether calls never come back;
   then a line "UUID MEMORY_BYTES HANDLE_CODE MEMORY_CODE PROCESSES_CODE PARENT" for each GPU, and for each part of one
   (MIG), whose PARENT is the index of its GPU, else -1. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 32
#define NOT_FOUND 6

struct device {
    char uuid[80];
    unsigned long long memory;
    int handle_code, memory_code, processes_code, parent;
};

struct memory {
    unsigned long long total, free, used;
};

static int init_code, count_code, hang, count;
static struct device devices[MOST], *handles[MOST];

static void look(void) {
    do {
        FILE *file = fopen(getenv("NVML_FILE"), "r");
        struct device d;
        count = 0;
        if (file == NULL || fscanf(file, "%d %d %d", &init_code, &count_code, &hang) != 3) abort();
        while (count < MOST && fscanf(file, "%79s %llu %d %d %d %d", d.uuid, &d.memory, &d.handle_code, &d.memory_code,
                                      &d.processes_code, &d.parent) == 6) {
            devices[count] = d;
            handles[count] = &devices[count];
            count++;
        }
        fclose(file);
        if (hang) usleep(20000);
    } while (hang);
}

static int nth(int parent, int number) {
    for (int n = 0; n < count; n++)
        if (devices[n].parent == parent && number-- == 0) return n;
    return -1;
}

static int give(int n, void **handle) {
    if (n < 0) return NOT_FOUND;
    *handle = handles[n];
    return devices[n].handle_code;
}

const char *nvmlErrorString(int code) { return code == 15 ? "GPU is lost" : "an error"; }

int nvmlInitWithFlags(unsigned flags) { look(); return init_code; }

int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetCount_v2(unsigned *found) {
    look();
    *found = 0;
    while (nth(-1, *found) >= 0) ++*found;
    return count_code;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { look(); return give(nth(-1, index), handle); }

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    look();
    for (int n = 0; n < count; n++)
        if (strcmp(devices[n].uuid, uuid) == 0) return give(n, handle);
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(struct device *device, char *uuid, unsigned length) {
    strncpy(uuid, device->uuid, length);
    return device->handle_code;
}

int nvmlDeviceGetMemoryInfo(struct device *device, struct memory *memory) {
    look();
    memory->total = device->memory;
    return device->memory_code;
}

int nvmlDeviceGetCudaComputeCapability(struct device *device, int *major, int *minor) {
    *major = 8, *minor = 6;
    return device->parent >= 0 ? 3 : 0;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(struct device *part, void **handle) {
    return give(nth(-1, part->parent), handle);
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned *found, void *processes) {
    look();
    *found = 0;
    return device->processes_code;
}
