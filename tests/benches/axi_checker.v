`default_nettype none

// Watches the AXI4 channels that a manager drives and reports what the protocol forbids.
//
// Valid stays and its payload with it until ready; bursts are INCR, of whole aligned beats, at most
// 256 of them, none across 4096 bytes; the last beat of a write burst, and no other, has wlast;
// payloads are known; and what this manager promises beyond that: at most 8 bursts are outstanding,
// and the data of a burst come after its address was offered. Reports begin with "violation:".
module axi_checker #(
    parameter integer DATA_W = 64,
    parameter integer ADDR_W = 40
) (
    input wire                clk,
    input wire                rst,
    input wire [  ADDR_W-1:0] araddr,
    input wire [         7:0] arlen,
    input wire [        16:0] arrest,   // size, burst, id, cache, prot, lock, qos... as they come
    input wire                arvalid,
    input wire                arready,
    input wire                rlast,
    input wire                rvalid,
    input wire                rready,
    input wire [  ADDR_W-1:0] awaddr,
    input wire [         7:0] awlen,
    input wire [        16:0] awrest,
    input wire                awvalid,
    input wire                awready,
    input wire [  DATA_W-1:0] wdata,
    input wire [DATA_W/8-1:0] wstrb,
    input wire                wlast,
    input wire                wvalid,
    input wire                wready,
    input wire                bvalid,
    input wire                bready
);
  localparam integer AX_W = ADDR_W + 25;
  localparam integer W_W = DATA_W + DATA_W / 8 + 1;
  localparam [2:0] SIZE = $clog2(DATA_W / 8);

  wire [AX_W-1:0] ar = {arrest, araddr, arlen};
  wire [AX_W-1:0] aw = {awrest, awaddr, awlen};
  wire [W_W-1:0] w = {wstrb, wdata, wlast};
  reg [AX_W-1:0] ar_q, aw_q;
  reg [W_W-1:0] w_q;
  reg ar_waits = 1'b0, aw_waits = 1'b0, w_waits = 1'b0;
  integer reads = 0, writes = 0, violations = 0;

  // Lengths of the write bursts that were offered, in order
  reg [7:0] length[0:1023];
  reg [9:0] offered = '0, sent = '0;
  integer beats = 0;

  task check(input ok, input [8*40-1:0] claim);
    if (ok !== 1'b1) begin
      $display("violation: %0s at %0t", claim, $time);
      violations = violations + 1;
    end
  endtask

  task check_address(input [ADDR_W-1:0] addr, input [7:0] len, input [16:0] rest);
    begin
      check(^{addr, len, rest} !== 1'bx, "known address");
      check(rest[16:12] == {SIZE, 2'b01}, "whole beats, INCR");
      check(addr % (DATA_W / 8) == 0, "aligned address");
      check(addr / 4096 == (addr + len * (DATA_W / 8)) / 4096, "inside 4096 bytes");
    end
  endtask

  always @(posedge clk) begin
    if (rst) begin
      {ar_waits, aw_waits, w_waits} = '0;
      {offered, sent} = '0;
      {reads, writes, beats} = '0;
    end else begin
      check(^{arvalid, awvalid, wvalid, rready, bready} !== 1'bx, "known handshakes");
      if (ar_waits) check(arvalid && ar === ar_q, "read address stays");
      if (aw_waits) check(awvalid && aw === aw_q, "write address stays");
      if (w_waits) check(wvalid && w === w_q, "write data stay");
      if (arvalid && !ar_waits) check_address(araddr, arlen, arrest);
      if (awvalid && !aw_waits) begin
        check_address(awaddr, awlen, awrest);
        length[offered] = awlen;
        offered = offered + 1'b1;
      end
      if (wvalid) begin
        check(offered != sent, "data after an address was offered");
        check(wlast === (beats == length[sent]), "wlast with the last beat");
        check(^wstrb !== 1'bx, "known strobes");
      end
      if (wvalid && wready) begin
        beats = wlast ? 0 : beats + 1;
        if (wlast) sent = sent + 1'b1;
      end
      if (arvalid && arready) reads = reads + 1;
      if (awvalid && awready) writes = writes + 1;
      check(reads <= 8 && writes <= 8, "at most 8 outstanding");
      if (rvalid && rready && rlast) reads = reads - 1;
      if (bvalid && bready) writes = writes - 1;
      {ar_waits, aw_waits, w_waits} = {arvalid && !arready, awvalid && !awready, wvalid && !wready};
      {ar_q, aw_q, w_q} = {ar, aw, w};
    end
  end
endmodule

`default_nettype wire
