import { sandboxControllerContract } from './sandbox-controller-contract.ts';
import { MemoryController } from './testing-controller.ts';

sandboxControllerContract('memory', async () => ({
  controller: new MemoryController(),
  sandbox: (id) => ({ id, labels: {}, runtime: { name: 'test' }, sandboxer: 'memory', extensions: {} }),
  close: async () => {},
}));
