`default_nettype none

// Simulation only: an AXI4 subordinate over BYTES bytes that begin at address ORIGIN.
//
// With +stall=0 (the default) it is the memory of rule T9, L = +latency, I = +interval: addresses
// are taken at once; the first beat of a read burst comes L + 1 cycles after its address, beats I
// cycles after the read beat before; a beat is written one cycle after its burst's address at the earliest
// and I cycles after the written beat before; the response comes L + 1 cycles after the last beat.
// With +stall=P every channel also pauses in P of 100 cycles, by its own generator (+seed). Then
// +order tells which of a write burst's channels waits: 0 neither (data may come first), 1 the
// address waits for data, 2 the data for the address.
//
//   +image=FILE      bytes in hexadecimal; the others are unknown (X)
//   +error_at=A      beats that hold byte address A answer +error_response (2, SLVERR) and are not
//                    written; as do beats outside of the memory, with DECERR
//
// INCR bursts of whole beats only. Benches read and write `memory`. Reset forgets all bursts.
module axi_memory #(
    parameter integer           DATA_W = 64,
    parameter integer           ADDR_W = 40,
    parameter integer           BYTES  = 65536,
    parameter      [ADDR_W-1:0] ORIGIN = 0
) (
    input wire clk,
    input wire rst,

    // read address
    input  wire [ADDR_W-1:0] s_axi_araddr,
    input  wire [       7:0] s_axi_arlen,
    input  wire              s_axi_arid,
    input  wire              s_axi_arvalid,
    output wire              s_axi_arready,

    // read data
    output wire [DATA_W-1:0] s_axi_rdata,
    output wire [       1:0] s_axi_rresp,
    output wire              s_axi_rlast,
    output wire              s_axi_rid,
    output wire              s_axi_rvalid,
    input  wire              s_axi_rready,

    // write address
    input  wire [ADDR_W-1:0] s_axi_awaddr,
    input  wire [       7:0] s_axi_awlen,
    input  wire              s_axi_awid,
    input  wire              s_axi_awvalid,
    output wire              s_axi_awready,

    // write data
    input  wire [  DATA_W-1:0] s_axi_wdata,
    input  wire [DATA_W/8-1:0] s_axi_wstrb,
    input  wire                s_axi_wlast,
    input  wire                s_axi_wvalid,
    output wire                s_axi_wready,

    // write response
    output wire [1:0] s_axi_bresp,
    output wire       s_axi_bid,
    output wire       s_axi_bvalid,
    input  wire       s_axi_bready
);
  localparam integer BEAT_BYTES = DATA_W / 8;
  localparam integer SLOTS = 16;  // bursts that each queue holds
  localparam [1:0] DECERR = 2'd3;

  reg [7:0] memory[0:BYTES-1];

  // Settings
  integer latency, interval, stall, order, seed;
  reg [1:0] error_response;
  reg [ADDR_W-1:0] error_at;
  reg error_set;
  reg [8*256-1:0] image;

  initial begin
    if (!$value$plusargs("latency=%d", latency)) latency = 0;
    if (!$value$plusargs("interval=%d", interval)) interval = 1;
    if (!$value$plusargs("stall=%d", stall)) stall = 0;
    if (!$value$plusargs("order=%d", order)) order = 0;
    if (!$value$plusargs("seed=%d", seed)) seed = 1;
    if (!$value$plusargs("error_response=%d", error_response)) error_response = 2'd2;
    error_set = $value$plusargs("error_at=%d", error_at) != 0;
    if ($value$plusargs("image=%s", image)) $readmemh(image, memory);
  end

  // Pauses: a xorshift generator a channel (AR, R, AW, W, B)
  reg [31:0] state[0:4];
  reg [4:0] pause = '0;
  integer channel;

  function [31:0] xorshift(input [31:0] x);
    begin
      xorshift = x ^ (x << 13);
      xorshift = xorshift ^ (xorshift >> 17);
      xorshift = xorshift ^ (xorshift << 5);
    end
  endfunction

  initial begin
    #1;  // the seed is read
    for (channel = 0; channel < 5; channel = channel + 1)
      state[channel] = xorshift(xorshift(32'h9E3779B9 * (seed * 5 + channel + 1)) | 1);
  end

  // A valid that was shown stays: its channel does not pause before it was taken.
  wire [4:0] shown = {s_axi_bvalid && !s_axi_bready, 2'b0, s_axi_rvalid && !s_axi_rready, 1'b0};

  always @(posedge clk) begin
    for (channel = 0; channel < 5; channel = channel + 1) begin
      state[channel] <= xorshift(state[channel]);
      pause[channel] <= !shown[channel] && (state[channel] >> 8) % 100 < stall;
    end
  end

  // Answer of a beat
  function [1:0] answer(input [ADDR_W-1:0] addr);
    if (addr < ORIGIN || addr - ORIGIN >= BYTES) answer = DECERR;
    else if (error_set && addr == error_at - error_at % BEAT_BYTES) answer = error_response;
    else answer = 2'd0;
  endfunction

  reg [63:0] now = '0;  // cycle, from power-up
  always @(posedge clk) now <= now + 1'b1;

  // Read bursts: a ring of addresses, lengths and cycles
  reg [ADDR_W-1:0] read_addr[0:SLOTS-1];
  reg [7:0] read_len[0:SLOTS-1];
  reg read_id[0:SLOTS-1];
  reg [63:0] read_at[0:SLOTS-1];
  reg [4:0] read_head = '0, read_tail = '0;
  reg [7:0] read_beat = '0;
  reg [63:0] read_free = '0;  // first cycle of the next beat by the interval
  wire [3:0] reading = read_head[3:0];
  wire [4:0] reads = read_tail - read_head;
  wire [ADDR_W-1:0] beat_addr = read_addr[reading] + read_beat * BEAT_BYTES;

  assign s_axi_arready = reads < SLOTS && !pause[0];
  assign s_axi_rvalid = reads != 0 && now >= read_at[reading] + latency + 1 && now >= read_free &&
                        !pause[1];
  assign s_axi_rlast = read_beat == read_len[reading];
  assign s_axi_rid = read_id[reading];
  assign s_axi_rresp = answer(beat_addr);

  genvar i;
  generate
    for (i = 0; i < BEAT_BYTES; i = i + 1) begin : g_byte
      assign s_axi_rdata[8*i+:8] = memory[beat_addr-ORIGIN+i];
    end
  endgenerate

  always @(posedge clk) begin
    if (rst) begin
      read_head <= '0;
      read_tail <= '0;
      read_beat <= '0;
    end else begin
      if (s_axi_arvalid && s_axi_arready) begin
        read_addr[read_tail[3:0]] <= s_axi_araddr;
        read_len[read_tail[3:0]]  <= s_axi_arlen;
        read_id[read_tail[3:0]]   <= s_axi_arid;
        read_at[read_tail[3:0]]   <= now;
        read_tail                 <= read_tail + 1'b1;
      end
      if (s_axi_rvalid && s_axi_rready) begin
        read_free <= now + interval;
        read_beat <= s_axi_rlast ? '0 : read_beat + 1'b1;
        if (s_axi_rlast) read_head <= read_head + 1'b1;
      end
    end
  end

  // Write bursts: addresses, data beats that wait for one, responses
  reg [ADDR_W-1:0] write_addr[0:SLOTS-1];
  reg write_id[0:SLOTS-1];
  reg [DATA_W+BEAT_BYTES:0] write_data[0:SLOTS-1];  // {last, strobes, data}
  reg [1:0] response[0:SLOTS-1];
  reg [63:0] response_at[0:SLOTS-1];
  reg [4:0] addr_head = '0, addr_tail = '0;  // addresses that have not got all their data
  reg [4:0] data_head = '0, data_tail = '0;
  reg [4:0] response_head = '0, response_tail = '0;
  reg [ADDR_W-1:0] write_offset = '0;  // of the next beat in its burst
  reg [1:0] worst = '0;                // answer of the burst's beats so far
  reg [63:0] write_free = '0;
  wire [4:0] addresses = addr_tail - addr_head;
  wire [4:0] waiting = data_tail - data_head;
  wire [4:0] unanswered = addr_tail - response_head;
  wire in_order = order == 2 || stall == 0;  // data after their address

  assign s_axi_awready = unanswered < SLOTS && !pause[2] &&
                         !(order == 1 && stall != 0 && waiting == 0 && !s_axi_wvalid);
  assign s_axi_wready = waiting < SLOTS && !pause[3] && now >= write_free &&
                        !(in_order && addresses == 0);
  assign s_axi_bvalid = response_head != response_tail && !pause[4] &&
                        now >= response_at[response_head[3:0]] + latency + 1;
  assign s_axi_bresp = response[response_head[3:0]];
  assign s_axi_bid = write_id[response_head[3:0]];

  // The data beat at the head; where none waits, the one that is being taken
  wire taken = s_axi_wvalid && s_axi_wready;
  wire passes = waiting == 0 && taken;
  wire writes = addresses != 0 && (waiting != 0 || taken);
  wire [DATA_W+BEAT_BYTES:0] head = passes ? {s_axi_wlast, s_axi_wstrb, s_axi_wdata} :
                                             write_data[data_head[3:0]];
  wire [ADDR_W-1:0] head_addr = write_addr[addr_head[3:0]] + write_offset;
  wire [1:0] head_answer = answer(head_addr);
  wire [1:0] burst_answer = head_answer > worst ? head_answer : worst;
  wire head_last = head[DATA_W+BEAT_BYTES];
  integer lane;

  always @(posedge clk) begin
    if (rst) begin
      {addr_head, addr_tail, data_head, data_tail, response_head, response_tail} <= '0;
      write_offset <= '0;
      worst        <= '0;
    end else begin
      if (s_axi_awvalid && s_axi_awready) begin
        write_addr[addr_tail[3:0]] <= s_axi_awaddr;
        write_id[addr_tail[3:0]]   <= s_axi_awid;
        addr_tail                  <= addr_tail + 1'b1;
      end
      if (taken) begin
        write_data[data_tail[3:0]] <= {s_axi_wlast, s_axi_wstrb, s_axi_wdata};
        data_tail                  <= data_tail + 1'b1;
        write_free                 <= now + interval;
      end
      if (writes) begin
        for (lane = 0; lane < BEAT_BYTES; lane = lane + 1)
          if (head[DATA_W+lane] && head_answer == 0)
            memory[head_addr-ORIGIN+lane] <= head[8*lane+:8];
        data_head    <= data_head + 1'b1;
        write_offset <= head_last ? '0 : write_offset + BEAT_BYTES;
        worst        <= head_last ? '0 : burst_answer;
        if (head_last) begin
          addr_head                        <= addr_head + 1'b1;
          response[response_tail[3:0]]     <= burst_answer;
          response_at[response_tail[3:0]]  <= now;
          response_tail                    <= response_tail + 1'b1;
        end
      end
      if (s_axi_bvalid && s_axi_bready) response_head <= response_head + 1'b1;
    end
  end

  wire unused_len = &s_axi_awlen;  // wlast tells
endmodule

`default_nettype wire
