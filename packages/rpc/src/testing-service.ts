// A service with all four shapes of method, for tests and benches of the transports; made here because containerd's API has no
// method that takes a stream and gives one answer.

import type { DescService } from '@bufbuild/protobuf';
import { create, createFileRegistry } from '@bufbuild/protobuf';
import {
  FieldDescriptorProto_Label,
  FieldDescriptorProto_Type,
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
} from '@bufbuild/protobuf/wkt';
import type { CallContext, CallOptions, Client, Implementation } from './service.ts';

/** The one message of the test service. */
export interface Item {
  text: string;
  data: Uint8Array;
}

/** Handlers of the test service, typed by hand since the service is made at run time. */
export interface TestHandlers {
  one?: (request: Item, context: CallContext) => Partial<Item> | Promise<Partial<Item>>;
  out?: (request: Item, context: CallContext) => AsyncIterable<Partial<Item>>;
  into?: (requests: AsyncIterable<Item>, context: CallContext) => Promise<Partial<Item>>;
  both?: (requests: AsyncIterable<Item>, context: CallContext) => AsyncIterable<Partial<Item>>;
}

export interface TestClient {
  one(request: Partial<Item>, options?: CallOptions): Promise<Item>;
  out(request: Partial<Item>, options?: CallOptions): AsyncIterable<Item>;
  into(requests: AsyncIterable<Partial<Item>>, options?: CallOptions): Promise<Item>;
  both(requests: AsyncIterable<Partial<Item>>, options?: CallOptions): AsyncIterable<Item>;
}

const field = (name: string, number: number, type: FieldDescriptorProto_Type) => ({
  name,
  number,
  type,
  label: FieldDescriptorProto_Label.OPTIONAL,
  jsonName: name,
});
const method = (name: string, clientStreaming: boolean, serverStreaming: boolean) => ({
  name,
  inputType: '.gantry.test.Item',
  outputType: '.gantry.test.Item',
  clientStreaming,
  serverStreaming,
});

const registry = createFileRegistry(
  create(FileDescriptorSetSchema, {
    file: [
      create(FileDescriptorProtoSchema, {
        name: 'gantry/test.proto',
        package: 'gantry.test',
        syntax: 'proto3',
        messageType: [
          {
            name: 'Item',
            field: [
              field('text', 1, FieldDescriptorProto_Type.STRING),
              field('data', 2, FieldDescriptorProto_Type.BYTES),
            ],
          },
        ],
        service: [
          {
            name: 'Test',
            method: [
              method('One', false, false),
              method('Out', false, true),
              method('Into', true, false),
              method('Both', true, true),
            ],
          },
        ],
      }),
    ],
  }),
);

export const TestService: DescService = registry.getService('gantry.test.Test')!;

export const testImplementation = (handlers: TestHandlers): Implementation<DescService> =>
  handlers as unknown as Implementation<DescService>;

export const asTestClient = (client: Client<DescService>): TestClient => client as unknown as TestClient;

/** The texts of a stream of items. */
export async function toArray(items: AsyncIterable<Item>): Promise<string[]> {
  const texts: string[] = [];
  for await (const { text } of items) texts.push(text);
  return texts;
}
