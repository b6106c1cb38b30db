// The part of the MLIR-AIE dialects that Zellige writes, in IRDL: operands, results, attributes and regions of every operation.
//
// It proves that a file is what is described here, not that AMD's own dialect takes it. LLVM 19's IRDL knows no terminators and no
// optional attributes: aie.end and aie.next_bd stand as others for the check (check.py), packet_type and packet_id aren't looked at.

irdl.dialect @aie {
  irdl.operation @device {
    %device = irdl.base "#builtin.string"
    %name = irdl.base "#builtin.string"
    %body = irdl.region()
    irdl.attributes {"device" = %device, "sym_name" = %name}
    irdl.regions(%body)
  }
  irdl.operation @tile {
    %column = irdl.base "#builtin.integer"
    %row = irdl.base "#builtin.integer"
    %tile = irdl.is index
    irdl.attributes {"col" = %column, "row" = %row}
    irdl.results(%tile)
  }
  irdl.operation @buffer {
    %tile = irdl.is index
    %address = irdl.base "#builtin.integer"
    %name = irdl.base "#builtin.string"
    %buffer = irdl.base "!builtin.memref"
    irdl.operands(%tile)
    irdl.attributes {"address" = %address, "sym_name" = %name}
    irdl.results(%buffer)
  }
  irdl.operation @lock {
    %tile = irdl.is index
    %number = irdl.base "#builtin.integer"
    %initial = irdl.base "#builtin.integer"
    %name = irdl.base "#builtin.string"
    %lock = irdl.is index
    irdl.operands(%tile)
    irdl.attributes {"lockID" = %number, "init" = %initial, "sym_name" = %name}
    irdl.results(%lock)
  }
  irdl.operation @flow {
    %source = irdl.is index
    %destination = irdl.is index
    %dma = irdl.is 1 : i32
    %source_channel = irdl.base "#builtin.integer"
    %destination_channel = irdl.base "#builtin.integer"
    irdl.operands(%source, %destination)
    irdl.attributes {"source_bundle" = %dma, "source_channel" = %source_channel, "dest_bundle" = %dma,
                     "dest_channel" = %destination_channel}
  }
  irdl.operation @packet_flow {
    %number = irdl.base "#builtin.integer"
    %body = irdl.region()
    irdl.attributes {"ID" = %number}
    irdl.regions(%body)
  }
  irdl.operation @packet_source {
    %tile = irdl.is index
    %dma = irdl.is 1 : i32
    %channel = irdl.base "#builtin.integer"
    irdl.operands(%tile)
    irdl.attributes {"bundle" = %dma, "channel" = %channel}
  }
  irdl.operation @packet_dest {
    %tile = irdl.is index
    %dma = irdl.is 1 : i32
    %channel = irdl.base "#builtin.integer"
    irdl.operands(%tile)
    irdl.attributes {"bundle" = %dma, "channel" = %channel}
  }
  irdl.operation @core {
    %tile = irdl.is index
    %weights = irdl.base "#builtin.array"
    %activations = irdl.base "#builtin.array"
    %results = irdl.base "#builtin.array"
    %accumulators = irdl.base "#builtin.string"
    %object = irdl.is "step.o"
    %core = irdl.is index
    %body = irdl.region()
    irdl.operands(%tile)
    irdl.attributes {"weights" = %weights, "activations" = %activations, "results" = %results, "accumulators" = %accumulators,
                     "link_with" = %object}
    irdl.results(%core)
    irdl.regions(%body)
  }
  irdl.operation @use_lock {
    %lock = irdl.is index
    %release = irdl.is 1 : i32
    %acquire = irdl.is 2 : i32
    %action = irdl.any_of(%release, %acquire)
    %value = irdl.is 1 : i32
    irdl.operands(%lock)
    irdl.attributes {"action" = %action, "value" = %value}
  }
  irdl.operation @dma_bd {
    %buffer = irdl.base "!builtin.memref"
    %number = irdl.base "#builtin.integer"
    %offset = irdl.base "#builtin.integer"
    %length = irdl.base "#builtin.integer"
    %sizes = irdl.base "#builtin.dense_array"
    %strides = irdl.base "#builtin.dense_array"
    %times = irdl.base "#builtin.integer"
    %advance = irdl.base "#builtin.integer"
    irdl.operands(%buffer)
    irdl.attributes {"bd_id" = %number, "offset" = %offset, "len" = %length, "sizes" = %sizes, "strides" = %strides,
                     "iteration_size" = %times, "iteration_stride" = %advance}
  }
  irdl.operation @runtime_sequence {
    %name = irdl.base "#builtin.string"
    %buffers = irdl.base "#builtin.array"
    %body = irdl.region
    irdl.attributes {"sym_name" = %name, "buffers" = %buffers}
    irdl.regions(%body)
  }
}

irdl.dialect @aiex {
  irdl.operation @dma_configure_task {
    %tile = irdl.is index
    %task = irdl.is index
    %name = irdl.base "#builtin.string"
    %receive = irdl.is 0 : i32
    %send = irdl.is 1 : i32
    %direction = irdl.any_of(%receive, %send)
    %channel = irdl.base "#builtin.integer"
    %again = irdl.base "#builtin.integer"
    %true = irdl.is true
    %false = irdl.is false
    %token = irdl.any_of(%true, %false)
    %body = irdl.region
    irdl.operands(%tile)
    irdl.attributes {"task" = %name, "direction" = %direction, "channel" = %channel, "repeat_count" = %again, "issue_token" = %token}
    irdl.results(%task)
    irdl.regions(%body)
  }
  irdl.operation @dma_start_task {
    %task = irdl.is index
    irdl.operands(%task)
  }
  irdl.operation @dma_await_task {
    %task = irdl.is index
    irdl.operands(%task)
  }
}
