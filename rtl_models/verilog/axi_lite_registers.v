`default_nettype none

// The registers of docs/programming.md (section 4) behind an AXI4-Lite slave, and the interrupt.
//
// Write address and write data are taken in any order; a write takes place in the cycle after the
// later of them, if its answer can be given. Its answer comes one cycle later. A read is answered
// one cycle after its address. One write and one read are under way at most.
// SLVERR, and no effect: offsets that are not listed or not multiples of 4; writes of registers
// that are read-only, of parts of a word (strobes), of BASE and PROGRAM while `busy`.
// `start` is high in the cycle of the write that starts the machine; it clears STATUS, ERROR and
// INTERRUPT_STATUS. Synchronous reset: every register that can be written is 0, nothing is pending.
//
//   port             meaning
//   busy, error, descriptor_index, finished, failed
//                    of the sequencer
//   shown_layer, counter, layer_count, total_count, run_cycles
//                    of layer_counters
module axi_lite_registers #(
    parameter integer ROWS       = 4,
    parameter integer COLS       = 4,
    parameter integer FEED       = 1,
    parameter integer LANES      = 1,
    parameter integer PE_KIND    = 0,
    parameter integer TERMS      = 1,
    parameter integer ACC_BITS   = 32,
    parameter integer SATURATE   = 0,
    parameter integer CODE_W     = 8,
    parameter integer DATA_W     = 64,
    parameter integer ADDR_W     = 40,  // of external memory, 33 to 64
    parameter [31:0] MACHINE_ID = 0
) (
    input wire clk,
    input wire rst,

    // AXI4-Lite
    input  wire [11:0] s_axi_awaddr,
    input  wire [ 2:0] s_axi_awprot,
    input  wire        s_axi_awvalid,
    output wire        s_axi_awready,
    input  wire [31:0] s_axi_wdata,
    input  wire [ 3:0] s_axi_wstrb,
    input  wire        s_axi_wvalid,
    output wire        s_axi_wready,
    output wire [ 1:0] s_axi_bresp,
    output wire        s_axi_bvalid,
    input  wire        s_axi_bready,
    input  wire [11:0] s_axi_araddr,
    input  wire [ 2:0] s_axi_arprot,
    input  wire        s_axi_arvalid,
    output wire        s_axi_arready,
    output wire [31:0] s_axi_rdata,
    output wire [ 1:0] s_axi_rresp,
    output wire        s_axi_rvalid,
    input  wire        s_axi_rready,
    output wire        irq,

    // sequencer
    output wire              start,
    output wire              abort_run,
    output wire [ADDR_W-1:0] base,
    output wire [      31:0] program_offset,
    input  wire              busy,
    input  wire              finished,
    input  wire              failed,
    input  wire [       3:0] error,
    input  wire [      31:0] descriptor_index,

    // counters
    output wire [31:0] shown_layer,
    output wire [ 3:0] counter,
    input  wire [31:0] layer_count,
    input  wire [31:0] total_count,
    input  wire [63:0] run_cycles
);
  localparam [1:0] OKAY = 2'b00;
  localparam [1:0] SLVERR = 2'b10;

  // offsets in words
  localparam [9:0] ID = 10'h00;
  localparam [9:0] VERSION = 10'h01;
  localparam [9:0] MACHINE = 10'h02;
  localparam [9:0] SHAPE = 10'h03;
  localparam [9:0] KIND = 10'h04;
  localparam [9:0] CONTROL = 10'h05;
  localparam [9:0] STATUS = 10'h06;
  localparam [9:0] ERROR = 10'h07;
  localparam [9:0] DESCRIPTOR = 10'h08;
  localparam [9:0] BASE_LOW = 10'h09;
  localparam [9:0] BASE_HIGH = 10'h0A;
  localparam [9:0] PROGRAM = 10'h0B;
  localparam [9:0] INTERRUPT_ENABLE = 10'h0C;
  localparam [9:0] INTERRUPT_STATUS = 10'h0D;
  localparam [9:0] CYCLES_LOW = 10'h0E;
  localparam [9:0] CYCLES_HIGH = 10'h0F;
  localparam [9:0] LAYER = 10'h10;
  localparam [9:0] LAYER_COUNTERS = 10'h20;
  localparam [9:0] TOTAL_COUNTERS = 10'h30;
  localparam [9:0] COUNTERS = 10'd12;

  localparam [31:0] ID_VALUE = 32'h4E41_5049;
  localparam [31:0] VERSION_VALUE = 32'h0001_0000;
  localparam [31:0] SHAPE_VALUE = {8'(LANES - 1), 8'(FEED - 1), 8'(COLS - 1), 8'(ROWS - 1)};
  localparam [31:0] KIND_VALUE = {
    11'd0, 1'(CODE_W / 16), 8'(DATA_W / 8), 1'(SATURATE), 6'(ACC_BITS), 3'(TERMS), 2'(PE_KIND)
  };

  initial begin
    if (ADDR_W < 33 || ADDR_W > 64) $fatal(1, "ADDR_W=%0d must be 33 to 64", ADDR_W);
  end

  wire unused_protection = ^{s_axi_awprot, s_axi_arprot};

  // Writes
  logic aw_full_q, w_full_q, b_valid_q, b_error_q;
  logic [11:0] aw_addr_q;
  logic [31:0] w_data_q;
  logic [3:0] w_strobe_q;
  wire write = aw_full_q && w_full_q && !b_valid_q;

  assign s_axi_awready = !aw_full_q;
  assign s_axi_wready  = !w_full_q;
  assign s_axi_bvalid  = b_valid_q;
  assign s_axi_bresp   = b_error_q ? SLVERR : OKAY;

  wire [9:0] written = aw_addr_q[11:2];
  wire whole = aw_addr_q[1:0] == '0 && w_strobe_q == '1;
  logic writable;

  always_comb begin
    case (written)
      CONTROL, INTERRUPT_ENABLE, INTERRUPT_STATUS, LAYER: writable = whole;
      BASE_LOW, BASE_HIGH, PROGRAM:                       writable = whole && !busy;
      default:                                            writable = 1'b0;
    endcase
  end

  wire accept = write && writable;
  wire control = accept && written == CONTROL;
  assign start     = control && w_data_q[0] && !busy;
  assign abort_run = control && w_data_q[1];

  always_ff @(posedge clk) begin
    if (rst) begin
      aw_full_q <= 1'b0;
      w_full_q  <= 1'b0;
      b_valid_q <= 1'b0;
    end else begin
      if (write || s_axi_awvalid && s_axi_awready) aw_full_q <= !write;
      if (write || s_axi_wvalid && s_axi_wready) w_full_q <= !write;
      if (write || s_axi_bready) b_valid_q <= write;
    end
    if (s_axi_awready) aw_addr_q <= s_axi_awaddr;
    if (s_axi_wready) {w_strobe_q, w_data_q} <= {s_axi_wstrb, s_axi_wdata};
    if (write) b_error_q <= !writable;
  end

  // Registers
  logic [ADDR_W-1:12] base_q;
  logic [31:12] program_q;
  logic [31:0] layer_q;
  logic [1:0] enable_q, interrupt_q;  // {error, done}
  logic done_q, failed_q, refused_q;

  assign base           = {base_q, 12'd0};
  assign program_offset = {program_q, 12'd0};
  assign shown_layer    = layer_q;
  assign irq            = (enable_q & interrupt_q) != '0;

  always_ff @(posedge clk) begin
    if (rst) begin
      base_q      <= '0;
      program_q   <= '0;
      layer_q     <= '0;
      enable_q    <= '0;
      interrupt_q <= '0;
      done_q      <= 1'b0;
      failed_q    <= 1'b0;
      refused_q   <= 1'b0;
    end else begin
      if (accept) begin
        case (written)
          BASE_LOW:         base_q[31:12] <= w_data_q[31:12];
          BASE_HIGH:        base_q[ADDR_W-1:32] <= w_data_q[ADDR_W-33:0];
          PROGRAM:          program_q <= w_data_q[31:12];
          LAYER:            layer_q <= w_data_q;
          INTERRUPT_ENABLE: enable_q <= w_data_q[1:0];
          INTERRUPT_STATUS: interrupt_q <= interrupt_q & ~w_data_q[1:0];
          default:          ;
        endcase
      end
      if (start) begin
        interrupt_q <= '0;
        done_q      <= 1'b0;
        failed_q    <= 1'b0;
        refused_q   <= 1'b0;
      end
      if (control && w_data_q[0] && busy) refused_q <= 1'b1;
      if (finished) begin
        interrupt_q[0] <= 1'b1;
        done_q         <= 1'b1;
      end
      if (failed) begin
        interrupt_q[1] <= 1'b1;
        failed_q       <= 1'b1;
      end
    end
  end

  // Reads
  logic r_valid_q, r_error_q;
  logic [31:0] r_data_q;
  wire [9:0] asked = s_axi_araddr[11:2];
  wire of_layer = asked >= LAYER_COUNTERS && asked < LAYER_COUNTERS + COUNTERS;
  wire of_total = asked >= TOTAL_COUNTERS && asked < TOTAL_COUNTERS + COUNTERS;
  wire aligned = s_axi_araddr[1:0] == '0;
  wire [31:0] base_low, base_high, cycles_low, cycles_high;
  logic readable;
  logic [31:0] value;
  assign {base_high, base_low}     = 64'(base);
  assign {cycles_high, cycles_low} = run_cycles;

  assign counter       = asked[3:0];
  assign s_axi_arready = !r_valid_q;
  assign s_axi_rvalid  = r_valid_q;
  assign s_axi_rdata   = r_data_q;
  assign s_axi_rresp   = r_error_q ? SLVERR : OKAY;

  always_comb begin
    readable = aligned;
    case (asked)
      ID:               value = ID_VALUE;
      VERSION:          value = VERSION_VALUE;
      MACHINE:          value = MACHINE_ID;
      SHAPE:            value = SHAPE_VALUE;
      KIND:             value = KIND_VALUE;
      CONTROL:          value = '0;
      STATUS:           value = {28'd0, refused_q, failed_q, done_q, busy};
      ERROR:            value = {28'd0, error};
      DESCRIPTOR:       value = descriptor_index;
      BASE_LOW:         value = base_low;
      BASE_HIGH:        value = base_high;
      PROGRAM:          value = program_offset;
      INTERRUPT_ENABLE: value = {30'd0, enable_q};
      INTERRUPT_STATUS: value = {30'd0, interrupt_q};
      CYCLES_LOW:       value = cycles_low;
      CYCLES_HIGH:      value = cycles_high;
      LAYER:            value = layer_q;
      default: begin
        value    = of_layer ? layer_count : total_count;
        readable = aligned && (of_layer || of_total);
      end
    endcase
  end

  always_ff @(posedge clk) begin
    if (rst) r_valid_q <= 1'b0;
    else if (s_axi_arvalid && s_axi_arready) r_valid_q <= 1'b1;
    else if (s_axi_rready) r_valid_q <= 1'b0;
    if (s_axi_arready) begin
      r_error_q <= !readable;
      r_data_q  <= readable ? value : '0;
    end
  end
endmodule

`default_nettype wire
