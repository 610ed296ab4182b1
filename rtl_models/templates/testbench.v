`default_nettype none

// Runs {network} on {hardware} and compares all that the program wrote, the cycles, and the
// counters of every layer with what the models expect. Prints PASS or FAIL.
// Written by `napier export`; README.md tells what is here.
module testbench;
  localparam integer MEMORY_BYTES = {memory_bytes};
  localparam integer PROGRAM = {program};  // offset of the first descriptor
  localparam integer LAYERS = {layers};
  localparam integer COUNTERS = {counters};  // of a layer
  localparam integer LATENCY = {latency};  // of the memory, in cycles
  localparam integer INTERVAL = {interval};  // cycles from one beat to the next
  localparam integer CYCLES = {cycles};  // expected
  localparam integer LIMIT = {limit};
  localparam integer MOST_SHOWN = 10;

  top_harness #(
{parameters}
  ) u_host ();

  reg [7:0] expected[0:MEMORY_BYTES-1];  // unknown where nothing is expected
  reg [31:0] counters[0:LAYERS*COUNTERS-1];
  integer i;
  integer differences = 0;
  integer compared = 0;

  task difference;
    begin
      differences = differences + 1;
      if (differences == MOST_SHOWN + 1) $display("...");
    end
  endtask

  initial begin
    $readmemh("{expected}", expected);
    $readmemh("{expected_counters}", counters);
    #1;  // behind the defaults of host and memory, before the reset ends
    $readmemh("{image}", u_host.u_system.u_memory.memory);
    u_host.u_system.u_memory.latency  = LATENCY;
    u_host.u_system.u_memory.interval = INTERVAL;
    u_host.program_offset    = PROGRAM;
    u_host.layers            = LAYERS;
    u_host.limit             = LIMIT;
    wait (u_host.finished);

    if (u_host.status !== 32'd2 || u_host.error !== 32'd0) begin
      difference;
      $display("STATUS %0d ERROR %0d DESCRIPTOR %0d: the program did not end well", u_host.status,
               u_host.error, u_host.descriptor);
    end
    if (u_host.cycles !== CYCLES) begin
      difference;
      $display("cycles: expected %0d, found %0d", CYCLES, u_host.cycles);
    end
    for (i = 0; i < LAYERS * COUNTERS; i = i + 1) begin
      if (u_host.counter[i] !== counters[i]) begin
        difference;
        if (differences <= MOST_SHOWN)
          $display("layer %0d, counter %0d: expected %0d, found %0d", i / COUNTERS, i % COUNTERS,
                   counters[i], u_host.counter[i]);
      end
    end
    for (i = 0; i < MEMORY_BYTES; i = i + 1) begin
      if (^expected[i] !== 1'bx) begin
        compared = compared + 1;
        if (u_host.u_system.u_memory.memory[i] !== expected[i]) begin
          difference;
          if (differences <= MOST_SHOWN)
            $display("byte %h: expected %h, found %h", i, expected[i], u_host.u_system.u_memory.memory[i]);
        end
      end
    end
    if (differences == 0) begin
      $display("PASS: %0d bytes, %0d cycles, %0d counters of %0d layers as expected", compared,
               CYCLES, LAYERS * COUNTERS, LAYERS);
      $finish;
    end
    $display("FAIL: %0d differences", differences);
    $fatal(1);
  end
endmodule

`default_nettype wire
